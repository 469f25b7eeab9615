"""Typed settings of every job, with their defaults; `settings.load_config` fills them in."""

from dataclasses import dataclass, field
from typing import Any

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
class RemoteModelConfig:
    """A model behind the Open Inference Protocol (Triton, KServe, ours), for experts of kind `triton`.

    `url` is http, https, grpc or grpcs://HOST:PORT; `input_name` and `output_name` may be empty if the
    model has one; `layout` is NCHW, NHWC or `encoded` (PNG files as BYTES); a request carries at most
    `batch_size` images; `token_env` names an environment variable that holds a bearer token.
    """

    url: str = ""
    model: str = ""
    version: str = ""
    input_name: str = ""
    output_name: str = ""
    layout: str = "NCHW"
    batch_size: int = 16
    timeout: float = 30.0
    retries: int = 4
    token_env: str = ""


@dataclass
class ExpertConfig:
    """An expression classifier: what kind of model, where it is, and what it expects.

    Attributes:
        kind: `bundle` (a folder written by our training), `poster_v2`, `apvit` or `ada_df` (a released
            checkpoint), `transformers` (a folder or hub id, `owner/name@revision`), `onnx` (a file) or
            `triton` (a model on a server, described by `remote`). The last two cannot be the guide.
        crop: how the face is cut out for its vote, a key of `faces.alignment.CROPS`; empty for the image as it
            is, which is also what a guide sees.
        input_size: of `onnx` and `triton`, as are `grey`, `mean`, `std` and `output`: pixels are scaled to
            [0, 1], then `mean` and `std` apply, one value or one a channel; `output` is logits or
            probabilities. The other kinds know their own.
        label_order: a name of `taxonomy.expressions.LABEL_ORDERS` or its class names with commas; may be empty
            where the model says it.
    """

    name: str = ""
    kind: str = "bundle"
    path: str = ""
    temperature: float = 1.0
    crop: str = ""
    input_size: int = 64
    grey: bool = False
    mean: list[float] = field(default_factory=lambda: [0.5])
    std: list[float] = field(default_factory=lambda: [0.5])
    label_order: str = ""
    output: str = "logits"
    remote: RemoteModelConfig = field(default_factory=RemoteModelConfig)


@dataclass
class FacesConfig:
    """How faces are found for experts that expect a crop: MediaPipe's `.task` file, and what to do with an
    image without a face (`no_face`: reject or keep) or with several (`many_faces`: certain, largest, central
    or reject).
    """

    landmarker_model: str = ""
    no_face: str = "reject"
    many_faces: str = "certain"


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

    Without `max_actors` the pool has `min_actors`; without these too it fills the cores, or the GPUs, that the
    cluster has when the job starts. `num_gpus` may be a part of one; `resources` are custom ones, such as
    {voter: 0.01}, which only some kinds of nodes have.
    """

    min_actors: int | None = None
    max_actors: int | None = None
    num_cpus: float = 1.0
    num_gpus: float = 0.0
    resources: dict[str, float] = field(default_factory=dict)


@dataclass
class FETextConfig:
    """FEText from a pile of faces: where they are, what their labels mean, and how they are prepared.

    Attributes:
        input: a folder, file or glob pattern of images, Parquet files or WebDataset tars; any fsspec URI.
        source: name of the collection; with `license` it stands in every row.
        label_order: classes of integer labels: a known order (`fer2013`) or names with commas; empty if the
            Parquet file says. `vote_order` is the same for the vote column.
        au_labeler: `mediapipe` (with `landmarker_model`), `bundle` (the network in `bundle`), `open_graph_au`
            (with `au_checkpoint`, a released file of any backbone and stage) or `none`.
        ambiguous_units: `keep` or `unknown`: what becomes of OpenGraphAU's AUL12 and AUR12, which its code
            reads from the node of AU11.
        align: move the face to where `crop` puts it, a key of `faces.alignment.CROPS`; needs
            `landmarker_model`.
        no_face: `reject`, or `keep` the whole image.
        many_faces: which of several faces counts: certain, largest, central, or `reject` the image.
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
    au_checkpoint: str = ""
    ambiguous_units: str = "keep"
    landmarker_model: str = ""
    bundle: str = "fer64"
    align: bool = True
    crop: str = "fer"
    no_face: str = "reject"
    many_faces: str = "certain"
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

    `num_images` rows are planned; with `accepted_per_class`, as many as give every expression that number of
    accepted rows by calibrated label, at most `max_images` (0: ten for each row asked for). Rows are
    bit-identical for one `batch_size`, `num_threads` and kind of device, whatever the pools.
    """

    output: str = MISSING
    num_images: int = 70
    accepted_per_class: int = 0
    max_images: int = 0
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
    faces: FacesConfig = field(default_factory=FacesConfig)
    vote: VoteConfig = field(default_factory=VoteConfig)

    batch_size: int = 16
    num_threads: int = 1
    dtype: str = "float32"
    shard_rows: int = 64
    generator_pool: PoolConfig = field(default_factory=PoolConfig)
    voter_pool: PoolConfig = field(default_factory=lambda: PoolConfig(min_actors=1, num_cpus=0.25))
    overlays: int = 8


@dataclass
class RequestsConfig:
    """How a served calibrator is asked: `concurrency` requests of `batch_size` images at once.

    `timeout` is for one attempt, `retries` counts the attempts after it. The bearer token, if the service
    wants one, is read from the environment variable `token_env`.
    """

    concurrency: int = 4
    batch_size: int = 8
    timeout: float = 30.0
    retries: int = 6
    token_env: str = "SYNFER_TOKEN"


@dataclass
class CalibrateConfig:
    """Checks the labels of faces in `input`: a folder, Parquet files or WebDataset tars.

    The columns are those of the input; integer labels follow the classes the input states, or `label_order`:
    a name of `taxonomy.expressions.LABEL_ORDERS` or its class names with commas.

    With `server`, the URL of a served calibrator, its models vote by its rules: `bundle`, `voters`,
    `experts`, `vote` and `image_size` are the server's then.
    """

    input: str = MISSING
    output: str = MISSING
    server: str = ""
    bundle: str = "fer64"
    image_column: str = "image"
    label_column: str = "label"
    name_column: str = ""
    label_order: str = ""

    voters: list[str] = field(default_factory=lambda: ["feranno", "residual", "separable"])
    experts: dict[str, ExpertConfig] = field(default_factory=dict)
    faces: FacesConfig = field(default_factory=FacesConfig)
    vote: VoteConfig = field(default_factory=VoteConfig)

    image_size: int | None = None
    batch_size: int = 32
    num_threads: int = 1
    shard_rows: int = 256
    voter_pool: PoolConfig = field(default_factory=PoolConfig)
    requests: RequestsConfig = field(default_factory=RequestsConfig)


@dataclass
class LimitsConfig:
    """The largest request that is read; a larger one is refused before it is decoded.

    `max_body_bytes` counts an HTTP body or a gRPC message, `max_json_bytes` its JSON part, `max_pixels` one
    image, `max_faces` one request; `body_timeout_s` is how long a body may take to come.
    """

    max_body_bytes: int = 32 << 20
    max_json_bytes: int = 8 << 20
    body_timeout_s: float = 10.0
    max_pixels: int = 16_000_000
    max_faces: int = 64


@dataclass
class ReplicasConfig:
    """How many copies of the calibrator run, what each takes, and how many requests may wait for them.

    Ray Serve adds a replica when more than `target_ongoing_requests` a replica are under way. A replica works
    on `max_ongoing_requests` at once; `max_queued_requests` more wait, and the rest is answered by 503 and
    `Retry-After: retry_after_s`.
    """

    min_replicas: int = 1
    max_replicas: int = 1
    target_ongoing_requests: float = 8.0
    max_ongoing_requests: int = 16
    max_queued_requests: int = 32
    retry_after_s: float = 1.0
    num_cpus: float = 1.0
    num_gpus: float = 0.0


@dataclass
class ServeConfig:
    """The served calibrator. `bundle` to `image_size` mean what they mean for `calibrate`.

    Attributes:
        batch_size: faces of a device batch; its free places are padded, so that answers do not depend on it.
        batch_wait_ms: how long an idle device waits for a second face.
        host: who may ask. HTTP listens on this address; Ray's gRPC proxy listens on all, so that with a
            loopback address here gRPC callers from elsewhere are refused.
        grpc_port: 0 for no gRPC.
        token_env: the environment variable that holds the bearer token; empty for none.
    """

    bundle: str = "fer64"
    voters: list[str] = field(default_factory=lambda: ["feranno", "residual", "separable"])
    experts: dict[str, ExpertConfig] = field(default_factory=dict)
    vote: VoteConfig = field(default_factory=VoteConfig)
    image_size: int | None = None

    batch_size: int = 8
    batch_wait_ms: float = 5.0
    num_threads: int = 1
    limits: LimitsConfig = field(default_factory=LimitsConfig)
    replicas: ReplicasConfig = field(default_factory=ReplicasConfig)

    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int = 9000
    request_timeout_s: float = 30.0
    token_env: str = ""


@dataclass
class EvaluateConfig:
    """Judges a generated dataset by models that had no part in it: a classifier and a face landmarker.

    With `reference`, a FEText folder of real faces, it also compares the two sets of images: by the features
    of the bundle's expert `features`, and pixel by pixel for copies.
    """

    input: str = MISSING
    reference: str = ""
    bundle: str = "fer64"
    features: str = "residual"
    judge: ExpertConfig = field(
        default_factory=lambda: ExpertConfig(name="judge", kind="onnx", label_order="fer2013")
    )
    landmarker_model: str = ""
    image_size: int = 64
    pool: PoolConfig = field(default_factory=PoolConfig)


@dataclass
class StudyConfig:
    """An ablation: the same planned rows made by several `variants` of the method, each judged alike.

    `generate` holds settings of the generate job, and each variant the ones in which it differs.
    """

    output: str = MISSING
    num_images: int = 350
    seed: int = 0
    generate: dict[str, Any] = field(default_factory=dict)
    variants: dict[str, Any] = field(default_factory=dict)
    evaluate: EvaluateConfig = field(default_factory=lambda: EvaluateConfig(input=""))


@dataclass
class OutputConfig:
    """A dataset folder or URI; `output=` may be left out."""

    output: str = MISSING


@dataclass
class QuickstartConfig:
    """Ten images of each expression from the embedded bundle."""

    output: str = "synfer-quickstart"
    seed: int = 0


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
class BenchmarkConfig:
    """The engine's ratios on this machine: one generator with one thread, medians of interleaved repetitions.

    `parts` are functions, engine, overlap, writer, resume, memory, scaling, scale and serving. A job of the
    engine has `shards` shards of `shard_batches` device batches; its first shard is start-up. Jobs of resume and memory
    have `growth_shards`. The writer writes `writer_rows` noise images; 256 pixels of noise weigh 90 KB, as a
    photograph of 512 pixels does.
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
    writer_rows: int = 1000
    writer_image_size: int = 256
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    serving: ServingBenchmarkConfig = field(default_factory=ServingBenchmarkConfig)
