"""Distances between two sets of image features: the Fréchet distance (FID) and the kernel distance (KID).

The features decide what the numbers mean: name the network, reference set and sample count beside each.
"""

import numpy as np
from numpy.typing import NDArray

from synfer_ray.errors import InputError


def frechet_distance(first: NDArray[np.floating], second: NDArray[np.floating]) -> float:
    """Fréchet distance between Gaussians fitted to both sets (Heusel et al. 2017).

    `|m1 - m2|^2 + tr(S1) + tr(S2) - 2 tr((S1 S2)^(1/2))`. It is biased upwards for few samples.

    Args:
        first: features [N, D].
        second: features [M, D].

    Raises:
        InputError: fewer than two samples, or different dimensions.
    """
    first, second = _checked(first, second)
    gap = first.mean(axis=0) - second.mean(axis=0)
    # The nonzero eigenvalues of S1 S2 are the squared singular values of X1 X2^T, at any rank.
    deviations = [(x - x.mean(axis=0)) / np.sqrt(len(x) - 1) for x in (first, second)]
    roots = [np.asarray(np.linalg.qr(x, mode="r")) for x in deviations]  # S = X^T X = R^T R, R is smaller
    cross = np.linalg.svdvals(roots[0] @ roots[1].T).sum()
    return float(gap @ gap + sum((x**2).sum() for x in deviations) - 2 * cross)


def kernel_distance(
    first: NDArray[np.floating],
    second: NDArray[np.floating],
    subsets: int = 100,
    subset_size: int = 1000,
    seed: int = 0,
) -> float:
    """Kernel inception distance: unbiased squared MMD, kernel `(x.y / D + 1)^3` (Binkowski et al. 2018).

    Args:
        first: features [N, D].
        second: features [M, D].
        subsets: random subsets whose estimates are averaged; one pass over everything if a set fits into one.
        subset_size: samples drawn from each set.

    Raises:
        InputError: fewer than two samples, or different dimensions.
    """
    first, second = _checked(first, second)
    size = min(subset_size, len(first), len(second))
    if size == len(first) == len(second):
        return _squared_mmd(first, second)
    rng = np.random.default_rng(seed)
    estimates = [
        _squared_mmd(rng.permutation(first)[:size], rng.permutation(second)[:size]) for _ in range(subsets)
    ]
    return float(np.mean(estimates))


def _squared_mmd(x: NDArray[np.floating], y: NDArray[np.floating]) -> float:
    def mean_off_diagonal(z: NDArray[np.floating]) -> float:
        kernel = _kernel(z, z)
        return (kernel.sum() - np.trace(kernel)) / (len(z) * (len(z) - 1))

    return float(mean_off_diagonal(x) + mean_off_diagonal(y) - 2 * _kernel(x, y).mean())


def _kernel(x: NDArray[np.floating], y: NDArray[np.floating]) -> NDArray[np.floating]:
    return (x @ y.T / x.shape[1] + 1) ** 3


def _checked(
    first: NDArray[np.floating], second: NDArray[np.floating]
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if min(len(first), len(second)) < 2 or first.shape[1:] != second.shape[1:]:
        raise InputError(
            f"features of shape {first.shape} and {second.shape} do not compare: "
            "two or more samples of one dimension are needed on each side"
        )
    return first, second
