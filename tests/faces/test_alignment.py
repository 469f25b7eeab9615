import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from synfer_ray.faces.alignment import CANONICAL, align_face, similarity

EYES_AND_MOUTH = np.array([[0.32, 0.39], [0.68, 0.39], [0.5, 0.6], [0.4, 0.77], [0.6, 0.77]])


def turned(points: np.ndarray, degrees: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    angle = np.radians(degrees)
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return scale * points @ rotation.T + shift


@given(
    degrees=st.floats(-180, 180),
    scale=st.floats(5, 500),
    shift=st.tuples(st.floats(-50, 50), st.floats(-50, 50)),
)
def test_similarity_undoes_any_turn_scale_and_shift(degrees, scale, shift):
    keypoints = turned(EYES_AND_MOUTH, degrees, scale, shift)
    rotation, offset = similarity(keypoints, size=64)
    mapped = rotation * (keypoints @ [1, 1j]) + offset
    expected = 64 * EYES_AND_MOUTH @ [1, 1j]
    assert np.allclose(mapped, expected, atol=1e-6)


def test_a_smile_does_not_change_the_fit():
    smiling = EYES_AND_MOUTH.copy()
    smiling[3, 0] -= 0.08
    smiling[4, 0] += 0.08
    assert similarity(smiling, 64) == pytest.approx(similarity(EYES_AND_MOUTH, 64))


def test_the_scale_stays_above_the_minimum_and_the_centre_in_place():
    rotation, offset = similarity(EYES_AND_MOUTH * 100, size=64, min_scale=0.8)
    assert abs(rotation) == pytest.approx(0.8)
    centre = (EYES_AND_MOUTH[[0, 1]].sum(axis=0) + EYES_AND_MOUTH[[3, 4]].mean(axis=0)) / 3 @ [100, 100j]
    assert rotation * centre + offset == pytest.approx(64 * CANONICAL.mean())


@pytest.mark.parametrize(("degrees", "scale"), [(0, 60), (25, 200), (-40, 400)])
def test_marked_eyes_and_mouth_land_on_their_places(degrees, scale):
    points = turned(EYES_AND_MOUTH, degrees, scale, (300, 280))
    image = Image.new("RGB", (1000, 1000), "black")
    draw = ImageDraw.Draw(image)
    for colour, (x, y) in zip(("red", "lime", None, "blue", "blue"), points):
        if colour:
            draw.circle((x, y), scale * 0.03, fill=colour)
    aligned = np.asarray(align_face(image, points, 128), dtype=float)
    rows, columns = np.mgrid[:128, :128] + 0.5
    for channel, (x, y) in enumerate(128 * np.array([[0.32, 0.39], [0.68, 0.39], [0.5, 0.77]])):
        weight = aligned[..., channel]
        assert (weight * columns).sum() / weight.sum() == pytest.approx(x, abs=1.0)
        assert (weight * rows).sum() / weight.sum() == pytest.approx(y, abs=1.0)


def test_outside_repeats_the_edge():
    image = Image.new("RGB", (64, 64), (10, 200, 90))
    shifted = 64 * EYES_AND_MOUTH + [-30, 25]
    aligned = np.asarray(align_face(image, shifted, 64))
    assert (aligned == (10, 200, 90)).all()
