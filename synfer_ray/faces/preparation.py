"""From any photograph to the face a model expects: which face counts, and how it is cut out."""

from collections.abc import Sequence

import numpy as np
from PIL import Image

from synfer_ray.errors import choose
from synfer_ray.faces.alignment import CROPS, crop_face
from synfer_ray.faces.images import BadImage, resize_square
from synfer_ray.faces.landmarks import FaceLandmarker, FaceReading

NO_FACE = ("reject", "keep")
"""What becomes of an image without a face: rejected, or taken whole (its central square)."""
MANY_FACES = ("certain", "largest", "central", "reject")
"""Which of several faces counts: that the detector is surest of, the largest, the most central, or none."""
MAX_FACES = 8


class FacePreparation:
    """Finds the face of an image that counts.

    Args:
        landmarker_model: MediaPipe's `.task` file.
        no_face: one of `NO_FACE`.
        many_faces: one of `MANY_FACES`.

    Raises:
        InputError: a policy is unknown, mediapipe is not installed, or the file is not a landmarker.
    """

    def __init__(self, landmarker_model: str, no_face: str = "reject", many_faces: str = "certain"):
        self.no_face = choose(no_face, NO_FACE, "no_face policy")
        self.many_faces = choose(many_faces, MANY_FACES, "many_faces policy")
        self.landmarker = FaceLandmarker(
            landmarker_model, max_faces=1 if many_faces == "certain" else MAX_FACES
        )

    def find(self, image: Image.Image) -> FaceReading | None:
        """Returns the face that counts; None if there is none and such images are kept.

        Raises:
            BadImage: `no_face` or `many_faces`.
        """
        readings = distinct(self.landmarker.read_all(image))
        if not readings:
            if self.no_face == "keep":
                return None
            raise BadImage("no_face", "the landmarker found no face")
        return choose_face(readings, self.many_faces, image.size)


def distinct(readings: Sequence[FaceReading]) -> list[FaceReading]:
    """Drops a reading whose centre lies in the box of a more certain one: detectors find a face twice."""
    kept: list[FaceReading] = []
    for reading in readings:
        centre = reading.box.reshape(2, 2).mean(axis=0)
        if not any((face.box[:2] < centre).all() and (centre < face.box[2:]).all() for face in kept):
            kept.append(reading)
    return kept


def choose_face(readings: Sequence[FaceReading], many_faces: str, size: tuple[int, int]) -> FaceReading:
    """Returns the face that counts, of at least one.

    Args:
        readings: the most certain one first.
        size: width and height of the image.

    Raises:
        BadImage: `many_faces`, if the policy is to reject.
    """
    if many_faces == "reject" and len(readings) > 1:
        raise BadImage("many_faces", f"{len(readings)} faces")
    if many_faces == "largest":
        return max(readings, key=lambda reading: np.ptp(reading.box.reshape(2, 2), axis=0).prod())
    if many_faces == "central":
        centre = np.array(size) / 2
        return min(readings, key=lambda reading: np.linalg.norm(reading.box.reshape(2, 2).mean(0) - centre))
    return readings[0]


def cut_out(image: Image.Image, reading: FaceReading | None, crop: str, size: int) -> Image.Image:
    """Cuts the face out in the way `crop`, or the central square if there is no face or no way.

    Raises:
        InputError: an unknown way.
    """
    if reading is None or not crop:
        return resize_square(image, size)
    way = CROPS[choose(crop, CROPS, "crop")]
    return crop_face(image, reading.keypoints, reading.box, size, way)
