"""What is trained on FEText, on which workers, and for how long."""

from dataclasses import dataclass, field


@dataclass
class FitConfig:
    """How one model is trained; `steps` of `batch_size` rows over all workers together.

    `mixed_precision` is no or bf16; `gradient_checkpointing` computes activations twice instead of keeping
    them.
    """

    steps: int = 1000
    batch_size: int = 32
    learning_rate: float = 4e-4
    warmup_steps: int = 100
    decay_share: float = 0.2
    weight_decay: float = 0.01
    ema_decay: float = 0.999
    max_grad_norm: float = 1.0
    mixed_precision: str = "no"
    gradient_checkpointing: bool = False
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
    vae_channels: list[int] = field(default_factory=lambda: [48, 32, 64, 96])
    unet_channels: list[int] = field(default_factory=lambda: [64, 96, 128, 128])
    weak_channels: list[int] = field(default_factory=lambda: [24, 40])
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
class FERAnnoConfig:
    """FERAnno's head: what it reads of the U-Net (`branches`: features, maps), and its size."""

    branches: list[str] = field(default_factory=lambda: ["features", "maps"])
    width: int = 64
    heads: int = 4
    dropout: float = 0.1


@dataclass
class TrainingConfig:
    """Training of a bundle's parts from a FEText folder; `configs/train_fer64.yaml` has what made `fer64`.

    `base` is a Stable Diffusion folder or hub id to start from; without it all networks start untrained.
    Faces are resized to `image_size`, by default the size that the model was (or will be) trained on. A
    finished bundle holds `layouts` synthetic faces to start from, and the action units of `au_prior_faces`
    clear faces of each expression; of those named in `au_prior_typical` only what textbooks list, at least
    as strong as they say. The diffusion model sees a face of a rare expression up to `rare_repeats`
    times an epoch, by the `rare_power` of how much rarer it is; one whose foremost expression has less than
    `clear_share` of the votes it sees once and without caption. `joint` trains that model on with its
    adapter, which pays for small models and is left out (no steps) by default, as is the `weak_unet` of
    `weak_channels` that the model then steers away from. `decoder` trains the autoencoder's decoder on (no
    steps by default), also on `decoder_draws` latents that the model draws. FERAnno learns from every face
    as it is and from `feranno_views` random views of it. What tells a finished bundle's whole faces from
    broken ones learns from `ratings`, a CSV file that rates samples of the datasets `rated` (and may say what
    viewers read in them), and starts from the expert `wholeness_base`. With that network and the experts,
    `preference` (no steps by default) ranks `preference_draws` of the model's own draws, and teaches it to
    prefer the better ones; then it goes `preference_stride` times as far as it learnt to.
    """

    input: str = "fetext"
    bundle: str = "bundle"
    runs: str = "runs"
    base: str | None = None
    lora_rank: int = 0
    image_size: int | None = None
    layouts: int = 256
    au_prior_faces: int = 64
    au_prior_typical: list[str] = field(default_factory=list)
    architecture: ArchitectureConfig = field(default_factory=ArchitectureConfig)
    autoencoder: FitConfig = field(default_factory=FitConfig)
    diffusion: FitConfig = field(default_factory=FitConfig)
    rare_repeats: int = 1
    rare_power: float = 0.5
    clear_share: float = 0.0
    au_adapter: FitConfig = field(default_factory=FitConfig)
    joint: FitConfig = field(default_factory=lambda: FitConfig(steps=0))
    weak_unet: FitConfig = field(default_factory=lambda: FitConfig(steps=0))
    decoder: FitConfig = field(default_factory=lambda: FitConfig(steps=0))
    decoder_draws: int = 1536
    au_labeler: FitConfig = field(default_factory=FitConfig)
    preview: FitConfig = field(default_factory=FitConfig)
    feranno: FitConfig = field(default_factory=FitConfig)
    feranno_views: int = 3
    feranno_head: FERAnnoConfig = field(default_factory=FERAnnoConfig)
    experts: dict[str, ExpertRecipe] = field(default_factory=dict)
    rated: list[str] = field(default_factory=list)
    ratings: str = ""
    wholeness: FitConfig = field(default_factory=FitConfig)
    wholeness_base: str = "separable"
    preference: FitConfig = field(default_factory=lambda: FitConfig(steps=0))
    preference_draws: int = 1536
    preference_stride: float = 1.0
    workers: WorkersConfig = field(default_factory=WorkersConfig)
