import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synfer_ray.errors import InputError
from synfer_ray.evaluation.frechet import frechet_distance, kernel_distance


def reference_frechet(first: np.ndarray, second: np.ndarray) -> float:
    """By the eigenvalues of the symmetric S1^(1/2) S2 S1^(1/2)."""
    covariances = [np.cov(x, rowvar=False) for x in (first, second)]
    values, vectors = np.linalg.eigh(covariances[0])
    root = vectors @ np.diag(np.sqrt(values.clip(0))) @ vectors.T
    cross = np.sqrt(np.linalg.eigvalsh(root @ covariances[1] @ root).clip(0)).sum()
    gap = first.mean(0) - second.mean(0)
    return gap @ gap + np.trace(covariances[0]) + np.trace(covariances[1]) - 2 * cross


def reference_kernel_distance(first: np.ndarray, second: np.ndarray) -> float:
    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (sum(p * q for p, q in zip(a, b)) / len(a) + 1) ** 3

    def within(x: np.ndarray) -> float:
        return np.mean([kernel(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j])

    return within(first) + within(second) - 2 * np.mean([kernel(a, b) for a in first for b in second])


@settings(deadline=None)
@given(st.integers(0, 200), st.integers(2, 30), st.integers(2, 30), st.integers(2, 12))
def test_frechet_matches_the_symmetric_square_root(seed: int, rows: int, others: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    mixing = rng.normal(size=(width, width))
    first, second = rng.normal(size=(rows, width)), rng.normal(size=(others, width)) @ mixing + 0.5
    expected = reference_frechet(first, second)
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_frechet_of_one_dimension_in_closed_form() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(2, 3, (50, 1)), rng.normal(-1, 0.5, (80, 1))
    closed = (first.mean() - second.mean()) ** 2 + (first.std(ddof=1) - second.std(ddof=1)) ** 2
    assert frechet_distance(first, second) == pytest.approx(closed)


def test_frechet_of_a_set_with_itself_is_zero_even_with_few_samples() -> None:
    features = np.random.default_rng(0).normal(size=(10, 64))
    assert frechet_distance(features, features) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(features, features + 2) == pytest.approx(4 * 64)


def test_kernel_distance_matches_loops() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(6, 3)), rng.normal(size=(6, 3)) + 1
    assert kernel_distance(first, second) == pytest.approx(reference_kernel_distance(first, second))


def test_kernel_distance_over_subsets_is_unbiased() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(300, 4)), rng.normal(size=(300, 4))
    shifted = second + 1
    assert kernel_distance(first, second, subset_size=50) == pytest.approx(0, abs=0.05)
    whole = kernel_distance(first, shifted, subset_size=300)
    assert kernel_distance(first, shifted, subset_size=50) == pytest.approx(whole, rel=0.1)
    assert kernel_distance(first, shifted, subset_size=50) == kernel_distance(first, shifted, subset_size=50)


@pytest.mark.parametrize("distance", [frechet_distance, kernel_distance])
def test_sets_that_do_not_compare_are_named(distance) -> None:
    with pytest.raises(InputError, match=r"\(1, 4\).*two or more samples"):
        distance(np.zeros((1, 4)), np.zeros((5, 4)))
    with pytest.raises(InputError, match=r"\(5, 3\) and \(5, 4\)"):
        distance(np.zeros((5, 3)), np.zeros((5, 4)))
