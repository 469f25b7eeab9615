"""How good a generated dataset is."""

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from synfer_ray.config.experts import ExpertConfig
from synfer_ray.config.pools import PoolConfig


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
class SweepConfig:
    """Faces that differ in one action unit alone, in a picture: what the AU adapter has learnt.

    `output` is a PNG file; `generate` holds settings of the generate job. Guidance is off unless it names a
    guide, and action units weigh 1.25 unless it says how much. Every face is the relaxed one but for the
    half, upper or lower, that the action unit moves in an aligned face (all of it, if not `local`), and is
    drawn by itself in the last steps alone, in the share `strength` of them.
    """

    output: str = MISSING
    action_units: list[str] = field(
        default_factory=lambda: ["AU01", "AU02", "AU04", "AU05", "AU07", "AU12", "AU25"]
    )
    intensities: list[float] = field(default_factory=lambda: [0.0, 0.25, 0.5, 0.75, 1.0])
    expression: str = "neutral"
    seed: int = 0
    strength: float = 0.85
    local: bool = True
    generate: dict[str, Any] = field(default_factory=dict)
