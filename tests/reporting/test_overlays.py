import numpy as np
import pytest
from PIL import Image

from synfer_ray.reporting.overlays import HEAT, heat_overlay


def test_the_strongest_place_is_brightest_and_the_weakest_untouched():
    image = Image.new("RGB", (64, 64), (10, 90, 20))
    attention = np.zeros((16, 16))
    attention[4, 12] = 3.0
    overlay = np.asarray(heat_overlay(image, attention)).astype(int)
    assert overlay.shape == (64, 64, 3)
    assert np.unravel_index(overlay.sum(-1).argmax(), (64, 64)) == pytest.approx((17.5, 49.5), abs=1)
    assert (overlay[40:] == (10, 90, 20)).all()


def test_a_map_of_full_size_is_blended_by_its_value():
    image = Image.new("RGB", (2, 1), (100, 100, 100))
    overlay = np.asarray(heat_overlay(image, np.array([[-1.0, 5.0]]), opacity=0.5))
    assert overlay[0, 0].tolist() == [100, 100, 100]
    assert np.allclose(overlay[0, 1], 0.5 * 100 + 0.5 * HEAT[-1], atol=1)


def test_a_flat_map_changes_nothing():
    image = Image.effect_noise((32, 32), 50).convert("RGB")
    assert np.array_equal(np.asarray(heat_overlay(image, np.full((8, 8), 0.3))), np.asarray(image))


@pytest.mark.parametrize("attention", [np.zeros(4), np.zeros((2, 2, 2)), np.array([[0.0, np.nan]])])
def test_what_is_no_map_is_refused(attention):
    with pytest.raises(ValueError, match="finite"):
        heat_overlay(Image.new("RGB", (4, 4)), attention)
