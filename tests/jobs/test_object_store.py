"""The main job from a bucket to a bucket: moto's S3 server, behind a proxy that lets requests fail."""

import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synfer_ray.config import GenerateConfig, LayoutConfig, PoolConfig, SamplingConfig, VoteConfig
from synfer_ray.pipeline import generate
from synfer_ray.storage.local_copy import CACHE
from synfer_ray.storage.locations import filesystem, list_files
from synfer_ray.storage.manifest import claim_output, read_manifest, write_manifest
from synfer_ray.storage.verify import verify
from tests.fake_dataset import fill
from tests.s3 import s3_server, sometimes
from tests.tiny_bundle import save_tiny_bundle

ROWS = 16


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Path:
    """A folder with the bundle and the FEText of the layouts."""
    folder = tmp_path_factory.mktemp("here")
    save_tiny_bundle(folder / "tiny")
    claim_output(folder / "pool", {"made": "up"}, planned_rows=20)
    fill(folder / "pool", shards=2, size=32)
    write_manifest(folder / "pool")
    return folder


@pytest.fixture(scope="module")
def server(here, two_cpus):
    """The same in a bucket; Ray runs already, and does not see the server's environment."""
    with s3_server() as proxy:
        fs, _ = filesystem("s3://bucket")
        fs.put(f"{here}/", "bucket/", recursive=True)
        yield proxy


@pytest.fixture
def proxy(server):
    yield server
    server.fault = lambda method, path: None


def settings(place: str, output: str) -> GenerateConfig:
    return GenerateConfig(
        output=output,
        num_images=ROWS,
        bundle=f"{place}/tiny",
        sampling=SamplingConfig(num_inference_steps=2),
        vote=VoteConfig(on_mismatch="keep_soft"),
        layout=LayoutConfig(mode="partial_noise", pool=f"{place}/pool"),
        batch_size=4,
        shard_rows=8,
        generator_pool=PoolConfig(min_actors=1),
        overlays=2,
    )


def run(output: str, cache: Path, *more: str) -> subprocess.CompletedProcess:
    """Runs the job in a process of its own, with a Ray of its own."""
    command = [
        "generate",
        f"output={output}",
        f"num_images={ROWS}",
        "bundle=s3://bucket/tiny",
        "sampling.num_inference_steps=2",
        "vote.on_mismatch=keep_soft",
        "layout.mode=partial_noise",
        "layout.pool=s3://bucket/pool",
        "batch_size=4",
        "shard_rows=8",
        "generator_pool.min_actors=1",
        "overlays=2",
        *more,
    ]
    code = "from synfer_ray.cli import main; main()"
    environment = {**os.environ, CACHE: str(cache)}
    environment.pop("RAY_ADDRESS", None)
    return subprocess.run(
        [sys.executable, "-c", code, *command], env=environment, capture_output=True, text=True, timeout=200
    )


def rows_of(output: str) -> dict[int, dict]:
    """The rows that a raw glob finds, without what follows from the names of bundle and pool."""
    fs, root = filesystem(output)
    rows = [
        row
        for folder in ("data", "rejects")
        for path in list_files(fs, f"{root}/{folder}")
        for row in pq.read_table(pa.BufferReader(fs.cat_file(path))).to_pylist()
    ]
    assert len({row["index"] for row in rows}) == len(rows)
    return {
        row["index"]: row | {"sample_id": None, "image": row["image"]["bytes"], "row": None} for row in rows
    }


@pytest.mark.slow
def test_the_job_runs_from_and_to_a_bucket_whose_requests_fail(proxy, here, tmp_path):
    generate(settings(str(here), str(tmp_path / "local")))
    output = "s3://bucket/out"
    proxy.fault = sometimes(0.04, ["500", "503", "reset", "late"])
    done = run(output, tmp_path / "cache")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {kind for _, _, kind in proxy.requests} >= {"500", "503", "reset", "late"}
    proxy.fault = lambda method, path: None
    assert verify(output) == []
    assert rows_of(output) == rows_of(str(tmp_path / "local"))
    assert read_manifest(output).planned_rows == ROWS
    names = {path.rsplit("/", 1)[-1] for path in list_files(*filesystem(output))}
    assert {"README.md", "report.html", "contact_sheet.png"} <= names and "lease.json" not in names

    proxy.requests.clear()
    again = run(output, tmp_path / "cache")
    assert (again.returncode, again.stdout) == (0, f"nothing to do: {output} holds all {ROWS} images\n")
    assert not [path for method, path, _ in proxy.requests if method == "PUT" or "safetensors" in path]


def test_a_bucket_that_is_forbidden_or_missing_ends_the_job_in_one_line(proxy, tmp_path):
    proxy.fault = lambda method, path: "403" if "/bucket/secret" in path else None
    for output, message in (("s3://bucket/secret", "Forbidden"), ("s3://nowhere/out", "does not exist")):
        failed = run(output, tmp_path / "cache")
        assert failed.returncode == 1 and message in failed.stderr, failed.stderr
        assert len(failed.stderr.splitlines()) == 1 and failed.stderr.startswith("synfer: ")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["403", "500", "reset"])
def test_shards_that_cannot_be_written_end_the_job_and_it_continues(proxy, here, tmp_path, kind):
    output = f"s3://bucket/failing-{kind}"
    seen = []

    def fault(method, path):
        if method == "PUT" and "/data/" in path:
            seen.append(path)
        return kind if method == "PUT" and "/data/train-00000008" in path else None

    proxy.fault = fault
    failed = run(output, tmp_path / "cache")
    assert failed.returncode == 1, failed.stderr
    assert len(failed.stderr.splitlines()) == 1 and "Traceback" not in failed.stderr
    assert 1 <= sum("train-00000008" in path for path in seen) <= 10
    fs, root = filesystem(output)
    assert not [path for path in list_files(fs, root) if "00000008" in path]
    proxy.fault = lambda method, path: None
    assert run(output, tmp_path / "cache").returncode == 0
    assert verify(output) == []
    generate(settings(str(here), str(tmp_path / "local")))
    assert rows_of(output) == rows_of(str(tmp_path / "local"))
