import numpy as np
import pyarrow.parquet as pq
import pytest

from synfer_ray.config import FETextConfig
from synfer_ray.faces.images import decode_image, encode_image
from synfer_ray.faces.landmarks import FaceReading
from synfer_ray.stages.face_aligner import FaceAligner, pose_of
from synfer_ray.stages.face_rows import face_rows, face_table
from tests.faces.pictures import picture, png


def test_without_landmarker_images_are_resized():
    aligner = FaceAligner(FETextConfig(image_size=32))
    (row,) = face_rows(aligner(face_table([{"index": 0, "image": png(0)}])))
    assert decode_image(row["image"]).size == (32, 32)
    assert row["reason"] is None and row["action_units"] is None


@pytest.mark.parametrize(
    ("yaw", "pitch", "pose"),
    [
        (0, -5, "frontal"),
        (30, -5, "right"),
        (-30, 0, "left"),
        (0, 20, "up"),
        (5, -30, "down"),
        (15, -5, None),
    ],
)
def test_pose(yaw, pitch, pose):
    assert pose_of(FaceReading(np.zeros(41), np.zeros((5, 2)), np.zeros(4), yaw, pitch)) == pose


def test_super_resolution_does_not_move_the_face():
    """An enlarged image aligns like the image itself: its keypoints are enlarged with it."""
    keypoints = np.array([[17, 20], [31, 18], [25, 27], [20, 35], [31, 34]], np.float32)
    reading = FaceReading(np.zeros(41), keypoints, np.zeros(4), 0.0, 0.0)
    aligner = FaceAligner(FETextConfig(image_size=64))
    smooth = picture(0, 6).resize((48, 48), 3)
    plain = np.asarray(aligner._resized(smooth, reading), float)
    aligner.super_resolution = lambda image: image.resize((192, 192), 3)
    enlarged = np.asarray(aligner._resized(smooth, reading), float)
    assert np.abs(plain - enlarged).mean() < 3


@pytest.mark.parametrize("labeler", ["mediapipe", "none"])
def test_faces_are_aligned_and_others_rejected(fer2013, third_party_models, labeler):
    pytest.importorskip("mediapipe")
    faces = pq.read_table(fer2013 / "validation-00000-of-00001.parquet")["image"].to_pylist()[:5]
    images = [encode_image(decode_image(face["bytes"])) for face in faces] + [png(0, side=64)]
    model = str(third_party_models / "face_landmarker.task")
    aligner = FaceAligner(FETextConfig(landmarker_model=model, au_labeler=labeler))
    rows = face_rows(aligner(face_table([{"index": i, "image": data} for i, data in enumerate(images)])))
    assert rows[-1]["reason"] == "no_face" and rows[-1]["stage"] == "align"
    accepted = [row for row in rows if row["reason"] is None]
    assert len(accepted) >= 4
    for row in accepted:
        assert decode_image(row["image"]).size == (64, 64)
        if labeler == "none":
            assert row["action_units"] is None
        else:
            units = np.array(row["action_units"])
            assert ((units >= 0) & (units <= 1) | np.isnan(units)).all() and not np.isnan(units).all()
