import logging

import numpy as np
import pytest
import torch
from torch import nn

from synfer_ray.calibration.experts import NetworkExpert
from synfer_ray.calibration.feranno import Annotator, load_annotator
from synfer_ray.calibration.networks import FERClassifier
from synfer_ray.calibration.recorded import RecordedAnnotator, recorded
from synfer_ray.diffusion.components import load_components
from tests.tiny_bundle import save_tiny_bundle

SIZES = (2, 5)


def faces(count: int, side: int = 32) -> np.ndarray:
    return np.random.default_rng(count).uniform(-1, 1, (count, 3, side, side)).astype(np.float32)


@pytest.fixture(scope="module")
def annotator(tmp_path_factory) -> Annotator:
    return load_annotator(load_components(save_tiny_bundle(tmp_path_factory.mktemp("bundle"))))


def test_a_recorded_annotator_answers_as_the_annotator_does(annotator) -> None:
    record = recorded(annotator, SIZES, 32)
    assert isinstance(record, RecordedAnnotator) and record.name == annotator.name
    for size in SIZES:
        images = torch.from_numpy(faces(size))
        said, expected = record.from_images(images), annotator.from_images(images)
        assert torch.equal(said.probs, expected.probs)
        assert list(said.attention) == list(expected.attention)
        for side, maps in expected.attention.items():
            assert torch.equal(said.attention[side], maps)
        np.testing.assert_array_equal(record.predict(images.numpy()), annotator.predict(images.numpy()))


def test_a_recorded_classifier_keeps_its_temperature() -> None:
    network = FERClassifier("residual", channels=(8, 16), input_size=32).eval()
    expert = NetworkExpert("residual", network, temperature=2.5)
    record = recorded(expert, SIZES, 32)
    assert isinstance(record, NetworkExpert) and isinstance(record.model, torch.jit.ScriptModule)
    for size in SIZES:
        np.testing.assert_array_equal(record.predict(faces(size)), expert.predict(faces(size)))


class Forgetful(FERClassifier):
    """Its answer follows from how often it was asked, which no recording repeats."""

    asked = 0

    def forward(self, images):
        self.asked += 1
        return super().forward(images) + self.asked


def test_what_is_not_repeated_to_the_bit_is_not_recorded(caplog) -> None:
    expert = NetworkExpert("residual", Forgetful("residual", channels=(8, 16), input_size=32).eval())
    with caplog.at_level(logging.WARNING):
        assert recorded(expert, SIZES, 32) is expert
    assert "Forgetful is not recorded" in caplog.text


def test_networks_of_others_stay_as_they_are() -> None:
    expert = NetworkExpert("other", nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 7)))
    assert recorded(expert, SIZES, 32) is expert
