import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synfer_ray.evaluation.classification import (
    accuracy,
    class_recalls,
    confusion_matrix,
    unweighted_average_recall,
)


def test_figures_by_hand() -> None:
    confusion = confusion_matrix(np.array([0, 0, 0, 0, 1, 1]), np.array([0, 0, 0, 1, 1, 2]), 4)
    np.testing.assert_array_equal(confusion, [[3, 1, 0, 0], [0, 1, 1, 0], [0] * 4, [0] * 4])
    assert accuracy(confusion) == pytest.approx(4 / 6)
    np.testing.assert_allclose(class_recalls(confusion), [0.75, 0.5, np.nan, np.nan])
    assert unweighted_average_recall(confusion) == pytest.approx(0.625)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=60))
def test_matches_counting_one_by_one(pairs: list[tuple[int, int]]) -> None:
    truth, predicted = np.array(pairs).T
    confusion = confusion_matrix(truth, predicted, 7)
    for row in range(7):
        for column in range(7):
            assert confusion[row, column] == pairs.count((row, column))
    assert accuracy(confusion) == pytest.approx(np.mean(truth == predicted))
    recalls = [np.mean(predicted[truth == label] == label) for label in sorted(set(truth))]
    assert unweighted_average_recall(confusion) == pytest.approx(np.mean(recalls))


def test_nothing_gives_nan() -> None:
    empty = confusion_matrix(np.array([], int), np.array([], int), 7)
    assert np.isnan(accuracy(empty)) and np.isnan(unweighted_average_recall(empty))
