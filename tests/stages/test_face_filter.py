import pytest
from PIL import Image, ImageFilter

from synfer_ray.faces.duplicates import Duplicate
from synfer_ray.faces.images import encode_image, image_hash, perceptual_hash
from synfer_ray.stages.face_filter import FaceFilter, hash_faces
from synfer_ray.stages.face_rows import face_rows, face_table
from tests.faces.pictures import picture, png

IMAGES = {
    "good": png(0),
    "damaged": png(1)[:500],
    "small": png(2, side=20),
    "blurred": encode_image(picture(3).filter(ImageFilter.GaussianBlur(4))),
    "again": png(4),
    "flat": encode_image(Image.new("RGB", (48, 48), "grey")),
}


@pytest.fixture
def filtered():
    table = face_table(
        [{"index": i, "sample_id": name, "image": data} for i, (name, data) in enumerate(IMAGES.items())]
    )
    return FaceFilter(min_side=32, min_sharpness=0.1, duplicates={4: Duplicate("exact_duplicate", 0)})(table)


def test_every_reject_keeps_its_row_and_its_reason(filtered):
    rows = {row["sample_id"]: (row["stage"], row["reason"]) for row in face_rows(filtered)}
    assert rows == {
        "good": (None, None),
        "damaged": ("filter", "damaged"),
        "small": ("filter", "too_small"),
        "blurred": ("filter", "blurred"),
        "again": ("filter", "exact_duplicate"),
        "flat": ("filter", "blurred"),
    }
    details = {row["sample_id"]: row["detail"] for row in face_rows(filtered)}
    assert details["small"] == "20x20, at least 32"
    assert details["again"] == "of row 0"


def test_an_earlier_reject_stays_as_it_is():
    table = face_table([{"index": 0, "image": b"", "stage": "label", "reason": "not_a_basic_expression"}])
    assert FaceFilter()(table).equals(table)


def test_only_accepted_faces_are_hashed(filtered):
    (row,) = hash_faces(filtered).to_pylist()
    assert row == {"index": 0, "pixels": image_hash(picture(0)), "perceptual": perceptual_hash(picture(0))}
