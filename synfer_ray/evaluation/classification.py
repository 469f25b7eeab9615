"""How well predicted expressions match the true ones."""

import numpy as np
from numpy.typing import NDArray


def confusion_matrix(
    truth: NDArray[np.integer], predicted: NDArray[np.integer], classes: int
) -> NDArray[np.int64]:
    """Counts [classes, classes]: row = true class, column = predicted class."""
    cells = np.asarray(truth, dtype=np.int64) * classes + predicted
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def accuracy(confusion: NDArray[np.int64]) -> float:
    """Share of correct predictions (WAR in zero-shot work); NaN without samples."""
    return _ratio(np.trace(confusion), confusion.sum()).item()


def class_recalls(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """Recall of each class [classes]; NaN for a class without samples."""
    return _ratio(np.diagonal(confusion), confusion.sum(axis=1))


def unweighted_average_recall(confusion: NDArray[np.int64]) -> float:
    """Mean recall over the classes that occur (UAR); NaN without samples."""
    recalls = class_recalls(confusion)
    present = recalls[~np.isnan(recalls)]
    return float(present.mean()) if len(present) else float("nan")


def _ratio(part: NDArray[np.int64], whole: NDArray[np.int64]) -> NDArray[np.float64]:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)
