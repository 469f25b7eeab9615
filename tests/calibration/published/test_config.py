"""The documented settings of published models, `configs/experts.yaml`."""

from pathlib import Path

import numpy as np
import pytest

from synfer_ray.calibration.experts import EXPERTS, load_expert
from synfer_ray.calibration.published.classifier import KNOWN_ORDERS
from synfer_ray.config import CalibrateConfig
from synfer_ray.faces.alignment import CROPS
from synfer_ray.faces.preparation import MANY_FACES, NO_FACE
from synfer_ray.settings import load_config
from synfer_ray.taxonomy.expressions import EXPRESSIONS, LABEL_ORDERS
from tests.calibration.tiny_onnx import linear_model

CONFIG = Path(__file__).resolve().parents[3] / "configs" / "experts.yaml"


@pytest.fixture
def config():
    return load_config(CalibrateConfig, str(CONFIG), ["input=x", "output=y"])


def test_every_entry_is_one_that_the_program_knows(config):
    for expert in config.experts.values():
        assert expert.kind in EXPERTS and expert.crop in ("", *CROPS)
        assert expert.label_order in LABEL_ORDERS or expert.kind in {kind for kind, _ in KNOWN_ORDERS} | {
            "transformers"
        }
    assert set(config.voters) <= set(config.experts)
    assert config.faces.no_face in NO_FACE and config.faces.many_faces in MANY_FACES


def test_the_entry_for_emotiefflib_loads_a_model_of_that_kind(config, tmp_path):
    """A linear model of the documented input and classes: the class it is sure of is found by name."""
    weights = np.zeros((3 * 224 * 224, 8), np.float32)
    weights[:, LABEL_ORDERS["emotiefflib"].index("surprise")] = 1e-4  # bright images
    weights[:, LABEL_ORDERS["emotiefflib"].index("sad")] = -1e-4  # dark ones
    spec = config.experts["emotieff"]
    spec.path = str(tmp_path / "model.onnx")
    Path(spec.path).write_bytes(linear_model(weights, ("N", 3, 224, 224)))
    images = np.stack([np.full((3, 64, 64), value, np.float32) for value in (1.0, -1.0)])
    votes = load_expert(spec).predict(images)
    assert [EXPRESSIONS[place] for place in votes.argmax(1)] == ["surprise", "sad"]
    # (1 - 0.485) / 0.229 and so on, over 224 x 224 pixels
    bright = sum((1 - mean) / std for mean, std in zip(spec.mean, spec.std)) * 224 * 224 * 1e-4
    others = np.exp(-np.array([bright, 2 * bright]))  # against the seven: six at zero logits, sad at minus
    assert votes[0].max() == pytest.approx(1 / (1 + 5 * others[0] + others[1]), rel=1e-3)
