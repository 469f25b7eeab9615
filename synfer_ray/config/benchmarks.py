"""What is measured, and how often."""

from dataclasses import dataclass, field

from synfer_ray.config.generation import MemoryConfig
from synfer_ray.config.serving import ServeConfig


@dataclass
class ScaleConfig:
    """The simulation of a large dataset: `actors` that each take `seconds_per_image` for a noise image."""

    num_images: int = 20_000
    shard_rows: int = 1000
    image_size: int = 64
    seconds_per_image: float = 0.008
    actors: int = 8
    voters: int = 1


@dataclass
class ServingBenchmarkConfig:
    """Loads on the service, each of `seconds`; an answer after `deadline` seconds is of no use any more."""

    seconds: float = 15.0
    deadline: float = 2.0
    serve: ServeConfig = field(default_factory=ServeConfig)


@dataclass
class FullSizeConfig:
    """Stable Diffusion 1.5 with random weights: H1 and H2 are for the two `image_sizes`.

    The model is written to the output, unless `bundle` names one. `peak_tflops` is the device's dense peak in
    the `dtype`, 989.5 for bfloat16 on an H100; `memory` has the levers that H1 to H6 use.
    """

    bundle: str | None = None
    image_sizes: list[int] = field(default_factory=lambda: [512, 256])
    num_inference_steps: int = 20
    guidance_scale: float = 7.5
    guidance_start: float = 0.75
    batch_size: int = 16
    shards: int = 3
    dtype: str = "bfloat16"
    memory: MemoryConfig = field(default_factory=lambda: MemoryConfig(channels_last=True, compile=True))
    peak_tflops: float = 989.5


@dataclass
class BenchmarkConfig:
    """The engine's ratios on this machine: one generator with one thread, medians of interleaved repetitions.

    `parts` are functions, engine, overlap, writer, resume, memory, scaling, scale, serving, flops and gpu. A
    job of the engine has `shards` shards of `shard_batches` device batches; its first shard is start-up. Jobs
    of overlap, resume and memory have `growth_shards`, of `overlap_rows` rows for overlap. The writer writes
    `writer_rows` noise images; 256 pixels of noise weigh 90 KB, as a photograph of 512 pixels does. `flops`
    and `gpu`, which needs one, follow `full_size`.
    """

    output: str = "benchmark"
    bundle: str = "fer64"
    parts: list[str] = field(default_factory=lambda: ["functions", "engine"])
    repetitions: int = 5
    batch_size: int = 16
    num_inference_steps: int = 20
    shard_batches: int = 4
    shards: int = 3
    growth_shards: int = 8
    overlap_rows: int = 1000
    writer_rows: int = 1000
    writer_image_size: int = 256
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    serving: ServingBenchmarkConfig = field(default_factory=ServingBenchmarkConfig)
    full_size: FullSizeConfig = field(default_factory=FullSizeConfig)
