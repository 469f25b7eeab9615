import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synfer_ray.errors import InputError
from synfer_ray.evaluation.image_sets import (
    ImageSet,
    compare,
    hold_out,
    mean_distance,
    nearest_correlation,
    unit_pixels,
)


def image_set(seed: int, count: int, shift: float = 0.0) -> ImageSet:
    rng = np.random.default_rng(seed)
    pixels = unit_pixels(rng.random((count, 8, 8)))
    return ImageSet(rng.normal(shift, 1, (count, 6)), pixels, np.arange(count) % 7)


def test_a_product_of_unit_pixels_is_the_correlation():
    images = np.random.default_rng(0).random((4, 5, 7))
    expected = np.corrcoef(images.reshape(4, -1))
    np.testing.assert_allclose(unit_pixels(images) @ unit_pixels(images).T, expected, atol=1e-6)


def test_flat_image_correlates_with_nothing():
    images = np.stack([np.full((4, 4), 0.3), np.random.default_rng(0).random((4, 4))])
    assert abs(unit_pixels(images)[0] @ unit_pixels(images)[1]) < 1e-3


@settings(deadline=None, max_examples=25)
@given(st.integers(2, 12), st.integers(1, 5), st.integers(0, 99))
def test_mean_distance_is_that_of_all_pairs(count, width, seed):
    rows = np.random.default_rng(seed).normal(3, 2, (count, width))
    pairs = [np.linalg.norm(a - b) for i, a in enumerate(rows) for j, b in enumerate(rows) if i != j]
    assert mean_distance(rows) == pytest.approx(np.mean(pairs), rel=1e-6)


def test_nearest_correlation_finds_the_copy_in_any_chunk():
    pixels = unit_pixels(np.random.default_rng(1).random((20, 6, 6)))
    others = unit_pixels(np.random.default_rng(2).random((30, 6, 6)))
    others[17] = pixels[13]
    nearest = nearest_correlation(pixels, others, chunk=4)
    np.testing.assert_allclose(nearest, (pixels @ others.T).max(axis=1), atol=1e-6)
    assert nearest[13] == pytest.approx(1) and np.delete(nearest, 13).max() < 0.95


def test_images_like_the_real_ones_are_as_near_as_the_real_ones():
    real = image_set(2, 2000)
    generated = image_set(1, 300)
    held_out = hold_out(generated.labels, real.labels)
    figures = compare(generated, real, held_out, real.features)
    assert figures["frechet_distance"] == pytest.approx(figures["frechet_distance_real"], abs=0.1)
    assert figures["diversity"] == pytest.approx(figures["diversity_real"], rel=0.05)


def test_shifted_collapsed_and_copied_images_show():
    real = image_set(2, 400)
    held_out = hold_out(np.arange(100) % 7, real.labels)
    decoded = real.features + 0.5
    shifted = compare(image_set(1, 100, shift=2.0), real, held_out, decoded)
    assert shifted["frechet_distance"] > shifted["frechet_distance_reconstructed"]
    assert shifted["frechet_distance_reconstructed"] > shifted["frechet_distance_real"]

    collapsed = real[np.zeros(100, int)]
    assert compare(collapsed, real, held_out, decoded)["diversity"] == pytest.approx(0, abs=1e-3)

    copied = compare(real[np.setdiff1d(np.arange(400), held_out[0])], real, held_out, decoded)
    assert copied["nearest_correlation_max"] == pytest.approx(1)
    assert copied["nearest_correlation_real_max"] < 0.95


def test_every_yardstick_shows_what_was_generated_and_leaves_the_reference_half_of_each_label():
    real = np.repeat([0, 1, 2, 5], [500, 300, 9, 40])
    draws = hold_out(np.repeat([0, 1, 2, 4], [100, 50, 100, 100]), real, draws=3)
    assert len(draws) == 3 and len({frozenset(rows.tolist()) for rows in draws}) == 3
    for rows in draws:
        assert len(set(rows.tolist())) == len(rows)
        assert np.bincount(real[rows], minlength=6).tolist() == [100, 50, 4, 0, 0, 0]


def test_figures_are_means_of_the_draws_and_the_largest_correlation_is_that_of_all():
    real, generated = image_set(2, 400), image_set(1, 100)
    draws = hold_out(generated.labels, real.labels, draws=3)
    decoded = real.features + 0.5
    together = compare(generated, real, draws, decoded)
    alone = [compare(generated, real, [rows], decoded) for rows in draws]
    for name in ("frechet_distance", "frechet_distance_reconstructed", "nearest_correlation_real"):
        assert together[name] == pytest.approx(np.mean([figures[name] for figures in alone]))
    for name in ("nearest_correlation_max", "nearest_correlation_real_max"):
        assert together[name] == max(figures[name] for figures in alone)
    distances = [figures["frechet_distance_reconstructed"] for figures in alone]
    assert together["frechet_distance_reconstructed_std"] == pytest.approx(np.std(distances))


@pytest.mark.parametrize(("generated", "real"), [([0], [0] * 9), ([0, 1], [0, 0, 1]), ([0, 0], [])])
def test_too_few_images_are_refused(generated, real):
    with pytest.raises(InputError, match=f"{len(generated)} generated and {len(real)} real"):
        hold_out(np.array(generated), np.array(real, int))
