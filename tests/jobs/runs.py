"""Runs of a small job: started in a process of their own, and compared with one that nothing interrupted."""

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq

from synfer_ray.config import GenerateConfig, PoolConfig, SamplingConfig, VoteConfig
from synfer_ray.storage.manifest import read_manifest
from synfer_ray.storage.verify import verify
from tests.tiny_bundle import save_tiny_bundle

ROWS = 32
SYNFER = "from synfer_ray.cli import main; main()"


def small_job(folder: Path, **changes) -> GenerateConfig:
    """Settings of a job of a few shards, with a tiny bundle of its own."""
    config = GenerateConfig(
        output=str(folder / "out"),
        num_images=ROWS,
        bundle=str(save_tiny_bundle(folder / "tiny")),
        sampling=SamplingConfig(num_inference_steps=2),
        vote=VoteConfig(on_mismatch="keep_soft"),
        batch_size=4,
        shard_rows=8,
        generator_pool=PoolConfig(min_actors=1),
        overlays=0,
    )
    return replace(config, **changes)


def rows_of(output) -> dict[int, dict]:
    """All rows that a raw glob finds; none may be there twice."""
    files = sorted([*Path(output).glob("data/*.parquet"), *Path(output).glob("rejects/*.parquet")])
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    assert max(Counter(row["sample_id"] for row in rows).values()) == 1
    return {row["index"]: row for row in rows}


def assert_whole(output, planned: int, rows: dict[int, dict]) -> None:
    """Every planned row is there once, by manifest and by glob, and is what it should be."""
    manifest = read_manifest(output)
    assert manifest.planned_rows == planned == manifest.totals["rows"] + manifest.totals["rejects"]
    found = rows_of(output)
    assert sorted(found) == list(range(planned))
    assert {index: row for index, row in found.items() if row != rows.get(index)} == {}
    assert verify(output) == []
    assert not list(Path(output).glob("attempts/*")) and not (Path(output) / "lease.json").exists()


def settings(config: GenerateConfig) -> list[str]:
    """The settings on a command line."""
    return [
        f"output={config.output}",
        f"num_images={config.num_images}",
        f"bundle={config.bundle}",
        f"sampling.num_inference_steps={config.sampling.num_inference_steps}",
        f"vote.on_mismatch={config.vote.on_mismatch}",
        f"vote.relabel_threshold={config.vote.relabel_threshold}",
        f"batch_size={config.batch_size}",
        f"shard_rows={config.shard_rows}",
        f"overlays={config.overlays}",
        f"generator_pool.min_actors={config.generator_pool.min_actors}",
    ]


def commits_in(output: Path) -> int:
    return len(list(output.glob("commits/*.json")))


def start(config: GenerateConfig, moment: str = "") -> subprocess.Popen:
    """Starts the job in a process of its own, on the Ray of this one."""
    import ray

    environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    job = ["-m", "tests.jobs.faulty", moment] if moment else ["-c", SYNFER, "generate"]
    command = [sys.executable, *job, *settings(config)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
