"""Temperature scaling: one number that makes probabilities mean what they say (Guo et al. 2017)."""

import numpy as np
from numpy.typing import NDArray

TEMPERATURE_RANGE = (0.05, 20.0)


def softmax(logits: NDArray[np.floating], temperature: float = 1.0) -> NDArray[np.float64]:
    """Softmax of `logits / temperature` over the last axis."""
    scaled = np.asarray(logits, dtype=np.float64) / temperature
    exponentials = np.exp(scaled - scaled.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def fit_temperature(logits: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Finds the temperature with the least negative log-likelihood on held-out data.

    It is convex in `1 / T`. Its slope, the mean expected logit minus the mean logit of the true class, grows
    with `1 / T`; bisection finds where it crosses zero.

    Args:
        logits: [N, C] of samples the classifier was not trained on.
        labels: class indices [N].

    Returns:
        The temperature, within TEMPERATURE_RANGE.
    """
    logits = np.asarray(logits, dtype=np.float64)
    true_logit = logits[np.arange(len(labels)), labels].mean()
    low, high = TEMPERATURE_RANGE
    for _ in range(60):
        temperature = np.sqrt(low * high)
        expected_logit = (softmax(logits, temperature) * logits).sum(axis=-1).mean()
        if expected_logit > true_logit:
            low = temperature  # overconfident
        else:
            high = temperature
    return float(np.sqrt(low * high))


def expected_calibration_error(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer], bins: int = 15
) -> float:
    """Mean gap between confidence and accuracy over equal-width confidence bins, weighted by their size.

    Args:
        probabilities: [N, C].
        labels: class indices [N].
    """
    confidence = np.asarray(probabilities, dtype=np.float64).max(axis=-1)
    correct = probabilities.argmax(axis=-1) == labels
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(which, weights=correct - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))
