"""Typed settings of every job, with their defaults; `settings.load_config` fills them in."""

from dataclasses import dataclass, field

from omegaconf import MISSING


@dataclass
class FitConfig:
    """How one model is trained; `steps` of `batch_size` rows over all workers together."""

    steps: int = 1000
    batch_size: int = 32
    learning_rate: float = 4e-4
    warmup_steps: int = 100
    decay_share: float = 0.2
    weight_decay: float = 0.01
    ema_decay: float = 0.999
    max_grad_norm: float = 1.0
    mixed_precision: str = "no"
    validation_rows: int = 512
    report_every: int = 100
    checkpoint_every: int = 500
    num_threads: int = 1
    seed: int = 0


@dataclass
class ArchitectureConfig:
    """Sizes of a new bundle's networks; the defaults are those of `fer64`."""

    image_size: int = 64
    latent_channels: int = 8
    vae_channels: list[int] = field(default_factory=lambda: [16, 32, 64, 96])
    unet_channels: list[int] = field(default_factory=lambda: [64, 96, 128, 128])
    attention_heads: int = 8
    text_width: int = 192
    text_layers: int = 2
    text_length: int = 48
    prediction_type: str = "v_prediction"


@dataclass
class WorkersConfig:
    """Ray Train workers."""

    num_workers: int = 1
    num_cpus: float = 1
    use_gpu: bool = False
    max_failures: int = 2


@dataclass
class ExpertRecipe:
    """One expression classifier: its architecture (`calibration.networks.ARCHITECTURES`) and its training."""

    architecture: str = "residual"
    fit: FitConfig = field(default_factory=FitConfig)


@dataclass
class TrainingConfig:
    """Training of a bundle's parts from a FEText folder; the defaults made `fer64`.

    `base` is a Stable Diffusion folder or hub id to start from; without it all networks start untrained.
    """

    input: str = "fetext"
    bundle: str = "bundle"
    runs: str = "runs"
    base: str | None = None
    lora_rank: int = 0
    architecture: ArchitectureConfig = field(default_factory=ArchitectureConfig)
    autoencoder: FitConfig = field(default_factory=FitConfig)
    diffusion: FitConfig = field(default_factory=FitConfig)
    au_adapter: FitConfig = field(default_factory=FitConfig)
    au_labeler: FitConfig = field(default_factory=FitConfig)
    preview: FitConfig = field(default_factory=FitConfig)
    feranno: FitConfig = field(default_factory=FitConfig)
    experts: dict[str, ExpertRecipe] = field(default_factory=dict)
    workers: WorkersConfig = field(default_factory=WorkersConfig)


@dataclass
class SamplingConfig:
    """How many steps the sampler takes and how strongly it follows the conditions.

    Without `au_guidance_scale` the action units weigh as much as the text, for a third less compute.
    """

    num_inference_steps: int = 20
    guidance_scale: float = 3.0
    au_guidance_scale: float | None = None
    gradient_checkpointing: bool = False


@dataclass
class GuidanceConfig:
    """Semantic guidance in the last steps, from the share `start` on; `guide: null` turns it off.

    With `preview` the guide looks through the bundle's small preview decoder, if it has one.
    """

    guide: str | None = "guide"
    step_size: float = 0.1
    norm: str = "token"
    start: float = 0.75
    words_only: bool = True
    preview: bool = True


@dataclass
class LayoutConfig:
    """Where sampling starts: `mode` none, partial_noise or ddim_inversion, from a face of the pool.

    The pool is the bundle's own latents of synthetic faces, or a FEText folder.
    """

    mode: str = "none"
    strength: float = 0.9
    pool: str | None = None


@dataclass
class ExpertConfig:
    """An expression classifier: a folder written by our training (`bundle`) or an ONNX file (`onnx`).

    The pixels of an ONNX model are scaled to [0, 1], then `mean` and `std` apply, one value or one a channel;
    `label_order` is a name of `taxonomy.expressions.LABEL_ORDERS` or its class names with commas; `output` is
    logits or probabilities.
    """

    name: str = ""
    kind: str = "bundle"
    path: str = ""
    temperature: float = 1.0
    input_size: int = 64
    grey: bool = False
    mean: list[float] = field(default_factory=lambda: [0.5])
    std: list[float] = field(default_factory=lambda: [0.5])
    label_order: str = ""
    output: str = "logits"


@dataclass
class VoteConfig:
    """How the voters' average settles a label: `on_mismatch` relabel, filter, keep_soft; weights by name."""

    on_mismatch: str = "relabel"
    relabel_threshold: float = 0.6
    min_confidence: float = 0.0
    weights: dict[str, float] = field(default_factory=dict)


@dataclass
class PoolConfig:
    """A pool of actors and what each one takes of the machine.

    Without `max_actors` the pool has `min_actors`; without these too it fills the cores, or the GPUs.
    """

    min_actors: int | None = None
    max_actors: int | None = None
    num_cpus: float = 1.0
    num_gpus: float = 0.0


@dataclass
class FETextConfig:
    """FEText from a pile of faces: where they are, what their labels mean, and how they are prepared.

    Attributes:
        input: a folder, file or glob pattern of images, Parquet files or WebDataset tars; any fsspec URI.
        source: name of the collection; with `license` it stands in every row.
        label_order: classes of integer labels: a known order (`fer2013`) or names with commas; empty if the
            Parquet file says. `vote_order` is the same for the vote column.
        au_labeler: `mediapipe` (with `landmarker_model`), `bundle` (the network in `bundle`) or `none`.
        align: move eyes and mouth to fixed places; needs `landmarker_model`.
        min_sharpness: in the units of `faces.images.sharpness`; photographs have 0.2 and more.
        upscaler: `lanczos` or the path of a spandrel checkpoint; networks run on a GPU if the pool has one.
        shard_rows: rows of the input that are read, written and committed together.
    """

    input: str = MISSING
    output: str = MISSING
    image_size: int = 64
    source: str = "faces"
    license: str = "unknown"
    image_column: str = "image"
    label_column: str = ""
    label_order: str = ""
    vote_column: str = ""
    vote_order: str = "ferplus"
    name_column: str = ""
    au_labeler: str = "mediapipe"
    landmarker_model: str = ""
    bundle: str = "fer64"
    align: bool = True
    min_side: int = 32
    min_sharpness: float = 0.1
    upscaler: str = "lanczos"
    seed: int = 0
    shard_rows: int = 500
    face_pool: PoolConfig = field(default_factory=PoolConfig)


DTYPES = ("float32", "bfloat16", "float16")
IMAGE_FORMATS = ("png", "jpeg", "webp")


@dataclass
class GenerateConfig:
    """The main job. `voters` and `guide` name experts of the bundle, or of `experts`; `feranno` is FERAnno.

    Rows are bit-identical for one `batch_size`, `num_threads` and kind of device, whatever the pools.
    """

    output: str = MISSING
    num_images: int = 70
    seed: int = 0
    bundle: str = "fer64"

    expressions: list[str] = field(
        default_factory=lambda: ["neutral", "happy", "sad", "surprise", "fear", "disgust", "anger"]
    )
    compounds: list[str] = field(
        default_factory=lambda: ["happily surprised", "sadly angry", "fearfully surprised"]
    )
    compound_share: float = 0.0
    attributes: dict[str, dict[str, float]] = field(default_factory=dict)

    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    layout: LayoutConfig = field(default_factory=LayoutConfig)
    au_scale: float = 1.0
    image_size: int | None = None
    image_format: str = "png"

    voters: list[str] = field(default_factory=lambda: ["feranno", "residual", "separable"])
    experts: dict[str, ExpertConfig] = field(default_factory=dict)
    vote: VoteConfig = field(default_factory=VoteConfig)

    batch_size: int = 16
    num_threads: int = 1
    dtype: str = "float32"
    shard_rows: int = 64
    generator_pool: PoolConfig = field(default_factory=PoolConfig)
    voter_pool: PoolConfig = field(default_factory=lambda: PoolConfig(min_actors=1, num_cpus=0.25))
    overlays: int = 8


@dataclass
class CalibrateConfig:
    """Checks the labels of faces in `input`: a folder, Parquet files or WebDataset tars.

    The columns are those of the input; integer labels follow the classes the input states, or `label_order`:
    a name of `taxonomy.expressions.LABEL_ORDERS` or its class names with commas.
    """

    input: str = MISSING
    output: str = MISSING
    bundle: str = "fer64"
    image_column: str = "image"
    label_column: str = "label"
    name_column: str = ""
    label_order: str = ""

    voters: list[str] = field(default_factory=lambda: ["feranno", "residual", "separable"])
    experts: dict[str, ExpertConfig] = field(default_factory=dict)
    vote: VoteConfig = field(default_factory=VoteConfig)

    image_size: int | None = None
    batch_size: int = 32
    num_threads: int = 1
    shard_rows: int = 256
    voter_pool: PoolConfig = field(default_factory=PoolConfig)


@dataclass
class EvaluateConfig:
    """Judges a generated dataset by models that had no part in it: a classifier and a face landmarker."""

    input: str = MISSING
    judge: ExpertConfig = field(
        default_factory=lambda: ExpertConfig(name="judge", kind="onnx", label_order="fer2013")
    )
    landmarker_model: str = ""
    image_size: int = 64
    pool: PoolConfig = field(default_factory=PoolConfig)


@dataclass
class QuickstartConfig:
    """Ten images of each expression from the embedded bundle."""

    output: str = "synfer-quickstart"
    seed: int = 0


@dataclass
class BenchmarkConfig:
    """The engine's ratios on this machine: one generator with one thread, medians of interleaved repetitions.

    A job of the engine has `shards` shards of `shard_batches` device batches; its first shard is start-up.
    """

    output: str = "benchmark"
    bundle: str = "fer64"
    repetitions: int = 5
    batch_size: int = 16
    num_inference_steps: int = 20
    shard_batches: int = 4
    shards: int = 3
