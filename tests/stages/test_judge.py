import pytest

from synfer_ray.config import EvaluateConfig, ExpertConfig
from synfer_ray.errors import InputError
from synfer_ray.stages.judge import Judge


def test_a_crop_needs_a_landmarker():
    with pytest.raises(InputError, match="crop=arcface of the judge needs landmarker_model"):
        Judge(EvaluateConfig(input="", judge=ExpertConfig("judge", "onnx", "x.onnx", crop="arcface")))
