"""Typed settings of every job, with their defaults; `settings.load_config` fills them in."""

from synfer_ray.config.benchmarks import (
    BenchmarkConfig,
    FullSizeConfig,
    ScaleConfig,
    ServingBenchmarkConfig,
)
from synfer_ray.config.calibration import CalibrateConfig, RequestsConfig
from synfer_ray.config.evaluation import EvaluateConfig, StudyConfig, SweepConfig
from synfer_ray.config.experts import ExpertConfig, FacesConfig, RemoteModelConfig, VoteConfig
from synfer_ray.config.fetext import FETextConfig
from synfer_ray.config.generation import (
    AU_PRIORS,
    DTYPES,
    IMAGE_FORMATS,
    GenerateConfig,
    GuidanceConfig,
    LayoutConfig,
    MemoryConfig,
    QuickstartConfig,
    SamplingConfig,
)
from synfer_ray.config.language import LanguageModelConfig
from synfer_ray.config.outputs import OutputConfig
from synfer_ray.config.pools import PoolConfig
from synfer_ray.config.serving import LimitsConfig, ReplicasConfig, ServeConfig
from synfer_ray.config.training import (
    ArchitectureConfig,
    ExpertRecipe,
    FERAnnoConfig,
    FitConfig,
    TrainingConfig,
    WorkersConfig,
)

__all__ = [
    "AU_PRIORS",
    "DTYPES",
    "IMAGE_FORMATS",
    "ArchitectureConfig",
    "BenchmarkConfig",
    "CalibrateConfig",
    "EvaluateConfig",
    "ExpertConfig",
    "ExpertRecipe",
    "FERAnnoConfig",
    "FETextConfig",
    "FacesConfig",
    "FitConfig",
    "FullSizeConfig",
    "GenerateConfig",
    "GuidanceConfig",
    "LanguageModelConfig",
    "LayoutConfig",
    "LimitsConfig",
    "MemoryConfig",
    "OutputConfig",
    "PoolConfig",
    "QuickstartConfig",
    "RemoteModelConfig",
    "ReplicasConfig",
    "RequestsConfig",
    "SamplingConfig",
    "ScaleConfig",
    "ServeConfig",
    "ServingBenchmarkConfig",
    "StudyConfig",
    "SweepConfig",
    "TrainingConfig",
    "VoteConfig",
    "WorkersConfig",
]
