import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from synfer_ray.errors import InputError
from synfer_ray.faces.alignment import align_face
from synfer_ray.faces.images import decode_image
from synfer_ray.faces.landmarks import (
    BLENDSHAPE_UNITS,
    SIDED_UNITS,
    FaceLandmarker,
    blendshape_action_units,
)
from synfer_ray.taxonomy.action_units import ACTION_UNITS

NAMES = [
    name
    for unit in BLENDSHAPE_UNITS.values()
    for name in ((f"{unit.blendshape}Left", f"{unit.blendshape}Right") if unit.halves else (unit.blendshape,))
]
REST, FULL = dict.fromkeys(NAMES, 0.0), dict.fromkeys(NAMES, 1.0)


def unit(vector: np.ndarray, name: str) -> float:
    return float(vector[ACTION_UNITS.index(name)])


def test_unseen_units_are_unknown_and_seen_ones_span_zero_to_one():
    rest, full = blendshape_action_units(REST), blendshape_action_units(FULL)
    assert rest.dtype == np.float32 and rest.shape == (41,)
    for name in ACTION_UNITS:
        if name in BLENDSHAPE_UNITS or name in SIDED_UNITS:
            assert (unit(rest, name), unit(full, name)) == (0.0, 1.0)
        else:
            assert np.isnan(unit(rest, name)) and np.isnan(unit(full, name))
    assert np.isnan([unit(full, name) for name in ("AU06", "AU09", "AU15")]).all()


def test_a_one_sided_smile_is_one_sided():
    units = blendshape_action_units(REST | {"mouthSmileLeft": 0.93})
    assert unit(units, "AUL12") == pytest.approx(1.0)
    assert unit(units, "AUR12") == 0.0
    assert unit(units, "AU12") == pytest.approx(0.5)


def test_a_score_between_rest_and_full_is_linear():
    assert unit(blendshape_action_units(REST | {"browInnerUp": 0.485}), "AU01") == pytest.approx(0.5)


def test_a_missing_model_is_bad_input(tmp_path):
    pytest.importorskip("mediapipe")
    with pytest.raises(InputError, match=r"missing face landmarker model: .*none\.task"):
        FaceLandmarker(str(tmp_path / "none.task"))


def test_a_file_that_is_no_model_is_bad_input(tmp_path):
    pytest.importorskip("mediapipe")
    (tmp_path / "wrong.task").write_bytes(b"not a model")
    with pytest.raises(InputError, match="is not a face landmarker"):
        FaceLandmarker(str(tmp_path / "wrong.task"))


@pytest.fixture(scope="module")
def landmarker(third_party_models):
    pytest.importorskip("mediapipe")
    return FaceLandmarker(str(third_party_models / "face_landmarker.task"))


@pytest.fixture(scope="module")
def happy_faces(fer2013):
    """Faces that at least nine of ten people called happy."""
    table = pq.read_table(fer2013 / "validation-00000-of-00001.parquet")
    rows = [row for row in table.slice(0, 400).to_pylist() if row["ferplus_votes"][1] >= 9]
    return [decode_image(row["image"]["bytes"]) for row in rows[:30]]


def test_happy_faces_smile_more_than_they_frown(landmarker, happy_faces):
    readings = [reading for reading in map(landmarker.read, happy_faces) if reading]
    assert len(readings) > 0.8 * len(happy_faces)
    units = np.array([reading.action_units for reading in readings])
    smile, frown = (np.nanmean(units[:, ACTION_UNITS.index(name)]) for name in ("AU12", "AU04"))
    assert smile > 0.5 > frown + 0.2


def test_the_mirror_image_swaps_sides(landmarker, happy_faces):
    face = next(
        image for image in happy_faces if (reading := landmarker.read(image)) and abs(reading.yaw) > 10
    )
    seen, mirrored = landmarker.read(face), landmarker.read(face.transpose(Image.Transpose.FLIP_LEFT_RIGHT))
    assert seen.yaw == pytest.approx(-mirrored.yaw, abs=6)
    assert seen.keypoints[[1, 0, 2, 4, 3]] * [-1, 1] + [face.width, 0] == pytest.approx(
        mirrored.keypoints, abs=1.5
    )
    assert unit(seen.action_units, "AUL12") == pytest.approx(unit(mirrored.action_units, "AUR12"), abs=0.15)


def test_a_turned_face_aligns_like_the_upright_one(landmarker, happy_faces):
    upright = next(image for image in happy_faces if landmarker.read(image)).resize((192, 192))
    framed = Image.new("RGB", (384, 384), (128, 128, 128))
    framed.paste(upright, (96, 96))
    views = [framed, framed.rotate(20, Image.Resampling.BICUBIC, fillcolor=(128, 128, 128))]
    first, second = (
        np.asarray(align_face(view, landmarker.read(view).keypoints, 64).convert("L"), dtype=float).ravel()
        for view in views
    )
    assert np.corrcoef(first, second)[0, 1] > 0.9


def test_no_face_is_none(landmarker):
    assert landmarker.read(Image.new("RGB", (64, 64), (90, 90, 90))) is None
