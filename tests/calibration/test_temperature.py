import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from synfer_ray.calibration.temperature import (
    TEMPERATURE_RANGE,
    expected_calibration_error,
    fit_temperature,
    softmax,
)


def calibrated_logits(seed: int, rows: int = 4000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(scale=2.0, size=(rows, 7))
    labels = np.array([rng.choice(7, p=p) for p in softmax(logits)])
    return logits, labels


def negative_log_likelihood(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    return torch.nn.functional.cross_entropy(
        torch.from_numpy(logits / temperature), torch.from_numpy(labels)
    ).item()


@pytest.mark.parametrize("temperature", [0.4, 1.0, 3.0])
def test_finds_the_temperature_the_labels_were_drawn_with(temperature: float) -> None:
    logits, labels = calibrated_logits(0)
    assert fit_temperature(logits * temperature, labels) == pytest.approx(temperature, rel=0.08)


@settings(deadline=None)
@given(st.integers(0, 1000), st.floats(0.3, 5))
def test_no_temperature_nearby_is_better(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(50, 7)) * scale, rng.integers(0, 7, 50)
    logits[np.arange(50), labels] += 1.5
    best = fit_temperature(logits, labels)
    least = negative_log_likelihood(logits, labels, best)
    assert least <= negative_log_likelihood(logits, labels, min(best * 1.05, TEMPERATURE_RANGE[1])) + 1e-9
    assert least <= negative_log_likelihood(logits, labels, max(best * 0.95, TEMPERATURE_RANGE[0])) + 1e-9


def test_stays_in_range_when_every_answer_is_right_or_says_nothing() -> None:
    logits = np.eye(7) * 3
    assert fit_temperature(logits, np.arange(7)) == pytest.approx(TEMPERATURE_RANGE[0])
    assert fit_temperature(logits, (np.arange(7) + 1) % 7) == pytest.approx(TEMPERATURE_RANGE[1])


def test_scaling_never_changes_the_choice() -> None:
    logits = np.random.default_rng(0).normal(size=(100, 7))
    assert (softmax(logits, 3.0).argmax(1) == logits.argmax(1)).all()


def test_softmax_of_large_logits_is_finite() -> None:
    np.testing.assert_allclose(softmax(np.array([[1e4, 0.0]])), [[1.0, 0.0]])


def test_calibration_error_by_hand() -> None:
    # Two bins: confidence .6 (one of two right) and .9 (right): |1 - 1.2| / 3 + |1 - .9| / 3
    probabilities = np.array([[0.6, 0.4], [0.6, 0.4], [0.1, 0.9]])
    assert expected_calibration_error(probabilities, np.array([0, 1, 1])) == pytest.approx(0.1)


def test_calibration_error_counts_a_confidence_of_one() -> None:
    assert expected_calibration_error(np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(1.0)


def test_fitting_lowers_the_calibration_error() -> None:
    logits, labels = calibrated_logits(1)
    sharp = logits * 3
    fitted = expected_calibration_error(softmax(sharp, fit_temperature(sharp, labels)), labels)
    assert fitted < 0.5 * expected_calibration_error(softmax(sharp), labels)
