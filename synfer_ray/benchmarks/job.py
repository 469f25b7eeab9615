"""The benchmark job: measures the ratios P1 to P11 on this machine and writes them as JSON and as a table."""

import json
import os
import platform
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from synfer_ray.benchmarks.cost import Cost, median
from synfer_ray.benchmarks.engine import measure_engine
from synfer_ray.benchmarks.functions import measure_functions
from synfer_ray.config import BenchmarkConfig, GenerateConfig, PoolConfig, SamplingConfig
from synfer_ray.errors import InputError
from synfer_ray.pipeline import check, make_plan
from synfer_ray.storage.bundle import find_bundle
from synfer_ray.storage.locations import filesystem, write_bytes


@dataclass(frozen=True)
class Definition:
    """A ratio: what it is, and the bound it has to keep."""

    meaning: str
    at_least: float | None = None
    at_most: float | None = None

    @property
    def target(self) -> str:
        """The bound in words."""
        if self.at_least is not None:
            return f">= {self.at_least:.2f}"
        return "" if self.at_most is None else f"<= {self.at_most:.2f}"

    def met(self, value: float) -> bool:
        """Whether the value keeps the bound."""
        return (self.at_least is None or value >= self.at_least) and (
            self.at_most is None or value <= self.at_most
        )


RATIOS = {
    "P1": Definition("rows/s in the engine's steady window / of its generator in a loop", at_least=0.95),
    "P1 serial": Definition("the same / of all its stages, one after the other in a loop"),
    "P2": Definition("images/s of a full batch / one by one"),
    "P3": Definition("denoising with the last quarter of the steps guided / unguided", at_most=1.35),
    "P5": Definition("generation with FERAnno fused / without", at_most=1.08),
    "P10": Definition("time to the first committed shard from a cold start / of the loop, models loaded"),
    "P11": Definition("image encoding / generation", at_most=0.02),
}
"""The ratios of one generator with one thread. The CPU column holds the same quotient of CPU seconds."""


def benchmark(config: BenchmarkConfig) -> None:
    """Writes `benchmark.json` and `benchmark.md` to `config.output` and prints the table.

    Raises:
        InputError: too few shards or repetitions, or a bundle that is missing or has no guide or FERAnno.
    """
    if config.shards < 2 or config.repetitions < 1:
        raise InputError(
            f"shards={config.shards} repetitions={config.repetitions}: "
            "a steady window needs at least 2 shards, a median at least 1 repetition"
        )
    job = generate_config(config)
    bundle = find_bundle(job.bundle)
    check(job, bundle)
    plan = make_plan(job, bundle)
    costs = measure_functions(plan, config.repetitions)
    costs |= measure_engine(plan, config.shards, config.repetitions)
    result = {
        "machine": machine(),
        "config": asdict(config),
        "ratios": {name: summary(definition, costs[name]) for name, definition in RATIOS.items()},
    }
    table = markdown(result)
    fs, root = filesystem(config.output)
    write_bytes(fs, f"{root}/benchmark.json", json.dumps(result, indent=1).encode())
    write_bytes(fs, f"{root}/benchmark.md", table.encode())
    print(table)


def generate_config(config: BenchmarkConfig) -> GenerateConfig:
    """Returns the settings of the measured job: one generator, one thread, guidance in the last quarter."""
    return GenerateConfig(
        output=config.output,
        bundle=config.bundle,
        sampling=SamplingConfig(num_inference_steps=config.num_inference_steps),
        batch_size=config.batch_size,
        shard_rows=config.batch_size * config.shard_batches,
        generator_pool=PoolConfig(min_actors=1, max_actors=1),
        overlays=0,
    )


def summary(definition: Definition, costs: list[Cost]) -> dict[str, Any]:
    """Returns the medians of a ratio and all its values; the wall clock decides about the target."""
    middle = median(costs)
    return {
        "meaning": definition.meaning,
        "wall": middle.wall,
        "cpu": middle.cpu,
        "target": definition.target,
        "met": definition.met(middle.wall),
        "repetitions": [asdict(cost) for cost in costs],
    }


def markdown(result: dict[str, Any]) -> str:
    """Returns the table, with the machine and the settings below it."""
    machine, config = result["machine"], result["config"]
    lines = ["| | ratio | wall | CPU | target |", "|---|---|---|---|---|"]
    for name, ratio in result["ratios"].items():
        target = f"{ratio['target']} {'met' if ratio['met'] else 'missed'}" if ratio["target"] else ""
        lines.append(f"| {name} | {ratio['meaning']} | {ratio['wall']:.3f} | {ratio['cpu']:.3f} | {target} |")
    lines += [
        "",
        f"Medians of {config['repetitions']} interleaved repetitions; batch {config['batch_size']}, "
        f"{config['num_inference_steps']} steps, one generator with one thread, "
        f"{config['shards']} shards of {config['shard_batches']} batches. "
        f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}, torch {machine['torch']}, "
        f"ray {machine['ray']}.",
    ]
    return "\n".join(lines) + "\n"


def machine() -> dict[str, Any]:
    """Returns what the figures were measured on."""
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "diffusers": version("diffusers"),
        "ray": version("ray"),
    }


def cpu_model() -> str:
    """Returns the processor's name, or its architecture where the system does not tell."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
