"""Generated against real images: how far apart, how varied, and whether any is a copy.

Every figure has a yardstick of real images, held out of the reference: as many as were generated, and of the
same expressions, as the distances between sets of faces depend on which expressions they show.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synfer_ray.errors import InputError
from synfer_ray.evaluation.frechet import frechet_distance

Array = NDArray[np.floating]


@dataclass(frozen=True)
class ImageSet:
    """Images as `features` [N, D] of a network and as `pixels` [N, P] of unit length and zero mean each.

    `labels` [N] are the expressions that they are meant to show.
    """

    features: Array
    pixels: Array
    labels: NDArray[np.integer]

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, rows: NDArray[np.integer]) -> "ImageSet":
        return ImageSet(self.features[rows], self.pixels[rows], self.labels[rows])


def unit_pixels(luminance: Array) -> NDArray[np.float32]:
    """Standardises luminance [N, H, W] so that the product of two rows [N, H*W] is their correlation."""
    flat = luminance.reshape(len(luminance), -1).astype(np.float32)
    centred = flat - flat.mean(axis=1, keepdims=True)
    return centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-6)


def hold_out(
    generated: NDArray[np.integer], real: NDArray[np.integer], draws: int = 8, seed: int = 0
) -> list[NDArray[np.int64]]:
    """Draws real images of the same labels as were generated: the yardsticks that all figures are given for.

    Distances depend on which images are drawn, so there are several draws. Each leaves at least half of the
    real images of a label to the reference.

    Args:
        generated: labels of the generated images, [N].
        real: labels of the real ones, [M].

    Raises:
        InputError: too few images of either kind.
    """
    rng = np.random.default_rng(seed)
    held_out = [_hold_out_once(generated, real, rng.permutation(len(real))) for _ in range(draws)]
    if len(generated) < 2 or min(map(len, held_out)) < 2:
        raise InputError(
            f"{len(generated)} generated and {len(real)} real images do not compare: "
            "at least 2 generated and 4 real ones of the same labels are needed"
        )
    return held_out


def _hold_out_once(
    generated: NDArray[np.integer], real: NDArray[np.integer], order: NDArray[np.int64]
) -> NDArray[np.int64]:
    drawn = [np.array([], np.int64)]
    for label in np.unique(generated):
        those = order[real[order] == label]
        drawn.append(those[: min((generated == label).sum(), len(those) // 2)])
    return np.concatenate(drawn)


def compare(
    generated: ImageSet, real: ImageSet, held_out: Sequence[NDArray[np.integer]], reconstructed: Array
) -> dict[str, float]:
    """Figures of generated images beside those of real ones, each the mean of all draws of `held_out`.

    Args:
        held_out: for each draw the rows of `real` that serve as the yardstick; the others are the reference.
        reconstructed: features of the real images after the autoencoder, [M, D], where held out at all.

    Returns:
        Fréchet distances to the reference (`_real`: of the held-out images, the floor; `_reconstructed`: of
        what the autoencoder leaves of them, with its standard deviation over the draws); diversity, the mean
        distance of two images in feature space; and the median correlation with the nearest image of the
        reference, beside the largest of all draws.
    """
    draws = [_compare_once(generated, real, rows, reconstructed[rows]) for rows in held_out]
    figures = {name: np.array([draw[name] for draw in draws]) for name in draws[0]}
    combined = {name: float(np.mean(values)) for name, values in figures.items()}
    largest = {name: float(values.max()) for name, values in figures.items() if name.endswith("_max")}
    spread = float(figures["frechet_distance_reconstructed"].std())
    return combined | largest | {"frechet_distance_reconstructed_std": spread}


def _compare_once(
    generated: ImageSet, real: ImageSet, held_out: NDArray[np.integer], reconstructed: Array
) -> dict[str, float]:
    reference = real[np.setdiff1d(np.arange(len(real)), held_out)]
    yardstick = real[held_out]
    nearest = nearest_correlation(generated.pixels, reference.pixels)
    nearest_real = nearest_correlation(yardstick.pixels, reference.pixels)
    return {
        "frechet_distance": frechet_distance(generated.features, reference.features),
        "frechet_distance_real": frechet_distance(yardstick.features, reference.features),
        "frechet_distance_reconstructed": frechet_distance(reconstructed, reference.features),
        "diversity": mean_distance(generated.features),
        "diversity_real": mean_distance(yardstick.features),
        "nearest_correlation": float(np.median(nearest)),
        "nearest_correlation_real": float(np.median(nearest_real)),
        "nearest_correlation_max": float(nearest.max()),
        "nearest_correlation_real_max": float(nearest_real.max()),
    }


def mean_distance(features: Array) -> float:
    """Mean Euclidean distance of two different rows of [N, D]."""
    rows = np.asarray(features, np.float64)
    squares = (rows**2).sum(axis=1)
    gaps = np.sqrt(np.maximum(squares[:, None] + squares - 2 * rows @ rows.T, 0))
    return float(gaps.sum() / (len(rows) * (len(rows) - 1)))


def nearest_correlation(pixels: Array, others: Array, chunk: int = 512) -> NDArray[np.float32]:
    """For each row of unit pixels [N, P] its largest product with a row of `others` [M, P]: 1 for a copy."""
    parts = [(pixels[start : start + chunk] @ others.T).max(axis=1) for start in range(0, len(pixels), chunk)]
    return np.concatenate(parts).astype(np.float32)
