"""The benchmark job: measures P1 to P11 and H1 to H6 on this machine, and writes JSON and a table."""

import json
import os
import platform
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from synfer_ray.benchmarks.cost import Cost, median
from synfer_ray.benchmarks.engine import measure_engine, measure_overlap
from synfer_ray.benchmarks.full_size import GAINS, count_image, measure_gpu
from synfer_ray.benchmarks.functions import measure_functions
from synfer_ray.benchmarks.growth import measure_memory, measure_resume, measure_scaling
from synfer_ray.benchmarks.scale import measure_scale
from synfer_ray.benchmarks.serving import measure_serving
from synfer_ray.benchmarks.writer import measure_writer
from synfer_ray.config import BenchmarkConfig, GenerateConfig, GuidanceConfig, PoolConfig, SamplingConfig
from synfer_ray.errors import InputError, choose
from synfer_ray.pipeline import check, make_plan
from synfer_ray.plan import Plan
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
    "P4": Definition(
        "time of the engine / of its slowest stage in a loop, generator and voters costing alike",
        at_most=1.14,
    ),
    "P4 serial": Definition("the same of all stages one after the other / of the slowest"),
    "P5": Definition("generation with FERAnno fused / without", at_most=1.08),
    "P6": Definition("plain Parquet write / with hash, fsync, rename and commit", at_least=0.8),
    "P7": Definition("p99 of the service at half load / of a direct call with one face"),
    "P7 alone": Definition("p99 of a lone caller less direct call less batch_wait_ms, in ms", at_most=15),
    "P7 half": Definition("p99 at half load less direct call less a wait for the batch, in ms", at_most=15),
    "P7 throughput": Definition("faces/s of the saturated service / of direct full batches", at_least=0.8),
    "P7 goodput": Definition("answers in time at twice that load / at that load", at_least=0.8),
    "P7 overload": Definition("p99 of the answers at twice that load, in ms"),
    "P7 start": Definition("seconds from nothing to the first answer, Ray running"),
    "P7 memory": Definition("memory of a replica in MiB, without what it shares"),
    "P8": Definition("the second half of a job, continued / the whole job, start-up left out", at_most=0.6),
    "P9 driver": Definition("peak memory of the driver with ten times the rows / once", at_most=1.1),
    "P9 actors": Definition("the same of all actors together", at_most=1.1),
    "P10": Definition("time to the first committed shard from a cold start / of the loop, models loaded"),
    "P11": Definition("image encoding / generation", at_most=0.02),
    "scaling": Definition("rows/s with a generator on every core / with one"),
    "scale rate": Definition("rows/s of the simulated large job / of its waiting generators", at_least=0.9),
    "scale driver": Definition("peak memory of its driver / after a tenth of the time", at_most=1.1),
    "H1": Definition("images/s of Stable Diffusion 1.5 at the first image size"),
    "H1 TFLOP": Definition("operations of such an image, unguided"),
    "H1 MFU": Definition("operations a second / the device's peak"),
    "H1 plain": Definition("time of a compiled diffusers pipeline / of our generator", at_least=0.97),
    "H2": Definition("images/s at the second image size"),
    "H2 TFLOP": Definition("operations of such an image"),
    "H2 MFU": Definition("operations a second / the device's peak"),
    "H3": Definition("P1 of this model", at_least=0.97),
    "H4": Definition("P3 of this model"),
    "H4 FLOP": Definition("the same in operations, without the guide's own"),
    "H4 FLOP decoder": Definition("the same through the autoencoder instead of a tiny one"),
    "H5": Definition("share of time in decoding and encoding", at_most=0.08),
    "H5 FLOP": Definition("share of operations in the decoding"),
    "H6": Definition("P5 of this model", at_most=1.03),
    "H6 FLOP": Definition("the same in operations"),
    "H6 FLOP apart": Definition("the same with the finished image encoded again, as in another actor"),
    **{f"gain {name}": Definition(f"time without {name} / with it alone") for name in GAINS},
}
"""What is measured, of one generator with one thread unless it says otherwise."""

Values = Sequence[Cost] | Sequence[float]
"""A value a repetition. A cost holds the quotients of wall and of CPU seconds."""


def functions(config: BenchmarkConfig, plan: Plan) -> dict[str, list[Cost]]:
    """Measures the generator's parts."""
    return measure_functions(plan, config.repetitions)


def engine(config: BenchmarkConfig, plan: Plan) -> dict[str, list[Cost]]:
    """Measures the Ray Data graph against a loop."""
    return measure_engine(plan, config.shards, config.repetitions)


def overlap(config: BenchmarkConfig, plan: Plan) -> dict[str, list[Cost]]:
    """Measures how stages of like cost overlap."""
    plan = replace(plan, config=replace(plan.config, shard_rows=config.overlap_rows))
    return measure_overlap(plan, config.growth_shards, config.repetitions)


def writer(config: BenchmarkConfig, plan: Plan) -> dict[str, list[Cost]]:
    """Measures the writing of shards."""
    return measure_writer(plan, config.writer_rows, config.writer_image_size, config.repetitions)


def resume(config: BenchmarkConfig, plan: Plan) -> dict[str, list[Cost]]:
    """Measures a continued job."""
    return measure_resume(short_plan(plan).config, config.growth_shards, config.repetitions)


def memory(config: BenchmarkConfig, plan: Plan) -> dict[str, list[float]]:
    """Measures memory against rows."""
    return measure_memory(short_plan(plan).config, config.growth_shards)


def scaling(config: BenchmarkConfig, plan: Plan) -> dict[str, list[float]]:
    """Measures more generators."""
    cores = os.cpu_count() or 1
    return measure_scaling(plan.config, cores, config.shards, config.repetitions)


def scale(config: BenchmarkConfig, plan: Plan) -> dict[str, list[float]]:
    """Simulates a large dataset, and leaves it with its figures in the output."""
    return measure_scale(config.scale, config.bundle, config.output)


def serving(config: BenchmarkConfig, plan: Plan) -> dict[str, list[Any]]:
    """Measures the served calibrator against direct calls of its models."""
    return measure_serving(config.serving, config.bundle, config.repetitions)


def flops(config: BenchmarkConfig, plan: Plan) -> dict[str, list[float]]:
    """Counts the operations of Stable Diffusion 1.5, on any machine."""
    return count_image(config.full_size)


def gpu(config: BenchmarkConfig, plan: Plan) -> dict[str, list[Any]]:
    """Measures Stable Diffusion 1.5 on the GPU."""
    return measure_gpu(config.full_size, config.output, config.repetitions)


PARTS: dict[str, Callable[[BenchmarkConfig, Plan], Any]] = {
    part.__name__: part
    for part in (functions, engine, overlap, writer, resume, memory, scaling, scale, serving, flops, gpu)
}


def benchmark(config: BenchmarkConfig) -> None:
    """Writes `benchmark.json` and `benchmark.md` to `config.output` and prints the table.

    Raises:
        InputError: too few shards or repetitions, a bundle that is missing or has no guide or FERAnno, or a
            part for GPUs without one.
    """
    for part in config.parts:
        choose(part, PARTS, "part of the benchmark")
    if gpu.__name__ in config.parts and not torch.cuda.is_available():
        raise InputError("part 'gpu' of the benchmark needs a CUDA device, and torch sees none here")
    if config.shards < 2 or config.repetitions < 1:
        raise InputError(
            f"shards={config.shards} repetitions={config.repetitions}: "
            "a steady window needs at least 2 shards, a median at least 1 repetition"
        )
    job = generate_config(config)
    bundle = find_bundle(job.bundle)
    check(job, bundle)
    plan = make_plan(job, bundle)
    measured: dict[str, Values] = {}
    for part in config.parts:
        measured |= PARTS[part](config, plan)
    result = {
        "machine": machine(),
        "config": asdict(config),
        "ratios": {name: summary(RATIOS[name], measured[name]) for name in RATIOS if name in measured},
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
        guidance=GuidanceConfig(start=0.75),
        batch_size=config.batch_size,
        shard_rows=config.batch_size * config.shard_batches,
        generator_pool=PoolConfig(min_actors=1, max_actors=1),
        overlays=0,
    )


def short_plan(plan: Plan) -> Plan:
    """Returns the plan with two steps and no guidance, for short jobs."""
    config = plan.config
    sampling = replace(config.sampling, num_inference_steps=2)
    return replace(plan, config=replace(config, sampling=sampling, guidance=GuidanceConfig(guide=None)))


def summary(definition: Definition, values: Values) -> dict[str, Any]:
    """Returns the median of a ratio and all its values; the wall clock decides about the target."""
    costs = [value for value in values if isinstance(value, Cost)]
    numbers = [value.wall if isinstance(value, Cost) else value for value in values]
    value = statistics.median(numbers)
    return {
        "meaning": definition.meaning,
        "value": value,
        "cpu": median(costs).cpu if costs else None,
        "target": definition.target,
        "met": definition.met(value),
        "repetitions": [asdict(cost) for cost in costs] or numbers,
    }


def markdown(result: dict[str, Any]) -> str:
    """Returns the table, with the machine and the settings below it."""
    machine, config = result["machine"], result["config"]
    lines = ["| | ratio | value | CPU | target |", "|---|---|---|---|---|"]
    for name, ratio in result["ratios"].items():
        target = f"{ratio['target']} {'met' if ratio['met'] else 'missed'}" if ratio["target"] else ""
        cpu = "" if ratio["cpu"] is None else f"{ratio['cpu']:.3f}"
        lines.append(f"| {name} | {ratio['meaning']} | {ratio['value']:.3f} | {cpu} | {target} |")
    lines += [
        "",
        f"Medians of {config['repetitions']} interleaved repetitions; batch {config['batch_size']}, "
        f"{config['num_inference_steps']} steps, one generator with one thread, "
        f"{config['shards']} shards of {config['shard_batches']} batches. "
        f"{machine['cpu']}, {machine['cores']} cores, {machine['gpu'] or 'no GPU'}, "
        f"Python {machine['python']}, torch {machine['torch']}, "
        f"ray {machine['ray']}.",
    ]
    return "\n".join(lines) + "\n"


def machine() -> dict[str, Any]:
    """Returns what the figures were measured on."""
    return {
        "cpu": cpu_model(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
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
