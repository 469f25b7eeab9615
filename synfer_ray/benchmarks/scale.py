"""A dataset of any size through the real job, with a generator that only waits: what does size itself cost?

Everything but the generator is real: plan, Ray Data graph, vote, Parquet, hashes, fsync, commits, manifest,
report. The first half is one run, the second half continues it.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np

from synfer_ray.benchmarks.growth import commit_moments, in_new_process
from synfer_ray.benchmarks.memory import MemoryMeter
from synfer_ray.benchmarks.scale_plot import plot_scale
from synfer_ray.benchmarks.stand_in import stand_in
from synfer_ray.config import GenerateConfig, GuidanceConfig, PoolConfig, ScaleConfig
from synfer_ray.pipeline import generate
from synfer_ray.reporting.report import build_report
from synfer_ray.storage.bundle import FERANNO
from synfer_ray.storage.locations import filesystem, join, write_bytes
from synfer_ray.storage.manifest import write_manifest
from synfer_ray.storage.shards import done_indices, find_orphans, read_commits

WAITING_CPUS = 0.05
"""Of an actor that waits: many fit on few cores, and the other stages find the rest."""
POINTS = 200
"""Of a series, kept in the result."""


def measure_scale(config: ScaleConfig, bundle: str, output: str) -> dict[str, list[float]]:
    """Simulates, writes `scale.json` and `scale.svg` to `output`, and returns the second half's ratios."""
    result = {"config": asdict(config), **simulate_scale(config, bundle, join(output, "dataset"))}
    fs, root = filesystem(output)
    write_bytes(fs, f"{root}/scale.json", json.dumps(result, indent=1).encode())
    write_bytes(fs, f"{root}/scale.svg", plot_scale(result).encode())
    last = result["runs"]["second half"]
    driver = last["memory_mib"]["driver"]
    return {
        "scale rate": [last["rows_per_second"] / result["ideal_rows_per_second"]],
        "scale driver": [max(driver) / max(driver[: len(driver) // 10 + 1])],
    }


def simulate_scale(config: ScaleConfig, bundle: str, output: str) -> dict[str, Any]:
    """Makes `config.num_images` rows in `output` in two halves, each in a process of its own.

    Returns:
        for each run its seconds (to the first commit, from a commit of every actor to the last, to finish),
        rows/s, commits/s and memory over time; and the seconds of what looks at the whole dataset.
    """
    half = config.num_images // 2 // config.shard_rows * config.shard_rows
    first = in_new_process(run_leg, job(config, bundle, output, half), config)
    second = in_new_process(run_leg, job(config, bundle, output, config.num_images), config)
    return {
        "runs": {"first half": first, "second half": second},
        "ideal_rows_per_second": config.actors / config.seconds_per_image,
        "metadata_seconds": time_metadata(job(config, bundle, output, config.num_images)),
    }


def job(config: ScaleConfig, bundle: str, output: str, num_images: int) -> GenerateConfig:
    """Returns the settings of one run: FERAnno alone votes, so that no other model costs time."""
    return GenerateConfig(
        output=output,
        num_images=num_images,
        bundle=bundle,
        guidance=GuidanceConfig(guide=None),
        voters=[FERANNO],
        shard_rows=config.shard_rows,
        batch_size=1,
        generator_pool=PoolConfig(min_actors=config.actors, num_cpus=WAITING_CPUS),
        voter_pool=PoolConfig(min_actors=config.voters, num_cpus=0.25),
        overlays=0,
    )


def run_leg(settings: GenerateConfig, config: ScaleConfig) -> dict[str, Any]:
    """Runs the job once; its start is the start of Ray and of the actors, up to the first new commit."""
    started = time.time()
    with MemoryMeter() as memory:
        generate(settings, stand_in(config.seconds_per_image, config.image_size))
    ended = time.time()
    moments = commit_moments(settings.output, started)
    shards, steady = len(moments), moments[-1] - moments[config.actors - 1]
    return {
        "shards": shards,
        "rows": shards * config.shard_rows,
        "seconds": {
            "first_commit": moments[0] - started,
            "steady": steady,
            "finish": ended - moments[-1],
            "job": ended - started,
        },
        "rows_per_second": (shards - config.actors) * config.shard_rows / steady,
        "commits_per_second": (shards - config.actors) / steady,
        "commit_seconds": thin([moment - started for moment in moments]),
        "memory_seconds": thin(memory.moments),
        "memory_mib": {kind: thin(series) for kind, series in memory.samples.items()},
    }


def time_metadata(settings: GenerateConfig) -> dict[str, float]:
    """Returns the seconds of all that looks at the whole dataset, and of a run with nothing to do."""
    output = settings.output
    works: dict[str, Callable[[], object]] = {
        "nothing_to_do": lambda: generate(settings),
        "read_commits": lambda: read_commits(output),
        "done_indices": lambda: done_indices(output),
        "find_orphans": lambda: find_orphans(output),
        "write_manifest": lambda: write_manifest(output),
        "build_report": lambda: build_report(output),
    }
    seconds = {}
    for name, work in works.items():
        started = time.perf_counter()
        work()
        seconds[name] = time.perf_counter() - started
    return seconds


def thin(series: Any) -> list[float]:
    """Returns up to `POINTS` evenly spaced values, the first and the last among them."""
    values = np.asarray(series, dtype=float)
    places = np.linspace(0, len(values) - 1, min(len(values), POINTS)).round().astype(int)
    return np.round(values[places], 2).tolist()
