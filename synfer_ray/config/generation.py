"""Synthetic faces: the main job."""

from dataclasses import dataclass, field

from omegaconf import MISSING

from synfer_ray.config.experts import ExpertConfig, FacesConfig, VoteConfig
from synfer_ray.config.language import LanguageModelConfig
from synfer_ray.config.pools import PoolConfig


@dataclass
class SamplingConfig:
    """How many steps the sampler takes and how strongly it follows the conditions.

    `eta` is the share of new noise in a step: 0 is DDIM; 1 corrects more of what earlier steps got wrong, and
    does not go with `ddim_inversion`. A `guidance_scale` of 1 is the text as it is: the empty or negative
    prompt then has no weight and costs nothing. With `au_guidance_scale: null` the action units weigh as much
    as the text, for one prediction less a step. `autoguidance_scale` says how far to go away from what a
    worse version of the model predicts, from the share `autoguidance_start` of the steps on; by default 0.3
    where a bundle has one in `weak_unet/`. `guidance_rescale` takes back that share of the contrast that
    strong scales add.
    """

    num_inference_steps: int = 20
    eta: float = 1.0
    guidance_scale: float = 1.0
    au_guidance_scale: float | None = 0.5
    autoguidance_scale: float | None = None
    autoguidance_start: float = 0.7
    guidance_rescale: float = 0.0
    negative_prompt: str = ""


@dataclass
class MemoryConfig:
    """What trades memory against time, by the names of diffusers; small models need none of it.

    `gradient_checkpointing` makes guided steps small and slower, `vae_slicing` decodes image by image and
    `vae_tiling` tile by tile (with faint seams); `channels_last` and `compile` are for speed on GPUs.
    """

    gradient_checkpointing: bool = False
    vae_slicing: bool = False
    vae_tiling: bool = False
    channels_last: bool = False
    compile: bool = False


@dataclass
class GuidanceConfig:
    """Semantic guidance in the later steps, from the share `start` on; `guide: null` turns it off.

    With `preview` the guide looks through the bundle's small decoder, if it has one in `preview/`: ours, or a
    diffusers AutoencoderTiny (TAESD).
    """

    guide: str | None = "guide"
    step_size: float = 0.06
    norm: str = "token"
    start: float = 0.5
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


DTYPES = ("float32", "bfloat16", "float16")
AU_PRIORS = ("textbook", "faces")
IMAGE_FORMATS = ("png", "jpeg", "webp")


@dataclass
class GenerateConfig:
    """The main job. `voters` and `guide` name experts of the bundle, or of `experts`; `feranno` is FERAnno.

    `num_images` rows are planned; with `accepted_per_class`, as many as give every expression that number of
    accepted rows by calibrated label, at most `max_images` (0: ten for each row asked for). Rows are
    bit-identical for one `batch_size`, `num_threads` and kind of device, whatever the pools. `au_prior` says
    where the action units of an expression come from: `textbook`, or real `faces` if the bundle has readings
    of some (the default then). `attributes` holds the share of each value, as {gender: {female: 2, male: 1}};
    a pose it does not name is frontal. `enricher` says who words the prompts; with `describe_action_units`
    they tell of the strongest action units in words, too. Faces that look less whole than `min_wholeness`, in
    0..1, are rejected, and so are those in which less than the share `min_readability` of viewers would read
    the expression asked for (either part of a compound one), by default below 0.8 and 0.9 where the bundle
    can tell; 0 keeps them all.
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
    au_prior: str | None = None
    describe_action_units: bool = True
    enricher: LanguageModelConfig = field(default_factory=LanguageModelConfig)

    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    guidance: GuidanceConfig = field(default_factory=GuidanceConfig)
    layout: LayoutConfig = field(default_factory=LayoutConfig)
    au_scale: float = 1.0
    image_size: int | None = None
    image_format: str = "png"

    min_wholeness: float | None = None
    min_readability: float | None = None
    voters: list[str] = field(default_factory=lambda: ["feranno", "residual", "separable"])
    experts: dict[str, ExpertConfig] = field(default_factory=dict)
    faces: FacesConfig = field(default_factory=FacesConfig)
    vote: VoteConfig = field(default_factory=lambda: VoteConfig(relabel_threshold=0.8))

    batch_size: int = 16
    num_threads: int = 1
    dtype: str = "float32"
    memory: MemoryConfig = field(default_factory=MemoryConfig)
    shard_rows: int = 64
    generator_pool: PoolConfig = field(default_factory=PoolConfig)
    voter_pool: PoolConfig = field(default_factory=lambda: PoolConfig(min_actors=1, num_cpus=0.25))
    overlays: int = 8


@dataclass
class QuickstartConfig:
    """A small dataset from the embedded bundle."""

    output: str = "synfer-quickstart"
    seed: int = 0
