"""How a job's cost grows: when it is continued (P8), with the rows (P9), and with the actors."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from multiprocessing import get_context
from tempfile import TemporaryDirectory
from time import time
from typing import Any

from synfer_ray.benchmarks.cost import Cost, CpuMeter
from synfer_ray.benchmarks.memory import MemoryMeter
from synfer_ray.config import GenerateConfig, PoolConfig
from synfer_ray.pipeline import generate
from synfer_ray.storage.shards import read_commits


def measure_resume(config: GenerateConfig, shards: int, repetitions: int) -> dict[str, list[Cost]]:
    """Returns one ratio a repetition for P8: the second half of a job, continued, against a whole job.

    A run costs what it takes from the start to the end of `generate`, with planning, the look at what is
    done, manifest and report, less the start of Ray and of the models.
    """
    rows = shards // 2 * 2 * config.shard_rows
    ratios = []
    for _ in range(repetitions):
        with TemporaryDirectory() as whole, TemporaryDirectory() as halves:
            full = run_cost(replace(config, output=whole, num_images=rows))
            run_cost(replace(config, output=halves, num_images=rows // 2))
            ratios.append(run_cost(replace(config, output=halves, num_images=rows)) / full)
    return {"P8": ratios}


def run_cost(config: GenerateConfig) -> Cost:
    """Runs the job; its start-up is what the first new shard took longer than the others do on average."""
    with CpuMeter() as meter:
        started = time()
        generate(config)
        ended = time()
    moments = commit_moments(config.output, started)
    whole, first = meter.cost(started, ended), meter.cost(started, moments[0])
    one_shard = meter.cost(moments[0], moments[-1]) * (1 / (len(moments) - 1))
    return whole - (first - one_shard)


def measure_memory(config: GenerateConfig, shards: int) -> dict[str, list[float]]:
    """Returns P9 for the driver and for the actors: peak memory with ten times the rows against once."""
    few, many = (in_new_process(peak_memory, config, times * shards * config.shard_rows) for times in (1, 10))
    return {f"P9 {kind}": [many[kind] / few[kind]] for kind in few}


def peak_memory(config: GenerateConfig, rows: int) -> dict[str, float]:
    """Returns the most MiB that the driver, and the actors together, took at once in a job."""
    with TemporaryDirectory() as output, MemoryMeter(interval=0.25) as memory:
        generate(replace(config, output=output, num_images=rows))
    return {kind: memory.peak(kind) for kind in ("driver", "actors")}


def measure_scaling(
    config: GenerateConfig, cores: int, shards: int, repetitions: int
) -> dict[str, list[float]]:
    """Returns the rate with `cores` generators against the rate with one, each with `shards` shards."""
    ratios = [steady_rate(config, cores, shards) / steady_rate(config, 1, shards) for _ in range(repetitions)]
    return {"scaling": ratios}


def steady_rate(config: GenerateConfig, generators: int, shards: int) -> float:
    """Returns rows/s after every generator has made a shard."""
    pool = PoolConfig(min_actors=generators, max_actors=generators)
    rows = generators * shards * config.shard_rows
    with TemporaryDirectory() as output:
        started = time()
        generate(replace(config, output=output, num_images=rows, generator_pool=pool))
        moments = commit_moments(output, started)
    return (rows - generators * config.shard_rows) / (moments[-1] - moments[generators - 1])


def in_new_process(work: Callable[..., Any], *arguments: Any) -> Any:
    """Returns what `work` returns in a fresh process: its memory starts from nothing."""
    with get_context("spawn").Pool(1) as pool:
        return pool.apply(work, arguments)


def commit_moments(output: str, since: float) -> list[float]:
    """Returns when each shard was committed, in order, as of `time.time()`; those before `since` left out."""
    moments = (datetime.fromisoformat(commit.committed_at).timestamp() for commit in read_commits(output))
    return sorted(moment for moment in moments if moment > since)
