"""Finds the face, brings it to its canonical place and size, and reads its action units and pose."""

import pyarrow as pa
from PIL import Image

from synfer_ray.config import FETextConfig
from synfer_ray.faces.alignment import align_face
from synfer_ray.faces.images import decode_image, encode_image, resize_square
from synfer_ray.faces.landmarks import FaceLandmarker, FaceReading
from synfer_ray.faces.super_resolution import SuperResolution
from synfer_ray.stages.face_rows import Row, update_accepted

LEVEL_PITCH, FRONTAL, TURNED = -5.0, 12.0, 18.0
"""Degrees: the pitch that MediaPipe gives a level face; less is frontal; more is turned."""


class FaceAligner:
    """A stage: a square PNG of `image_size` for every row; a row without a face is rejected.

    Without `landmarker_model` images are only cut square and resized. The action units that it reads are
    kept if it is the labeller; the pose is kept always.

    Raises:
        InputError: a model file is missing or not usable.
    """

    def __init__(self, config: FETextConfig):
        self.config = config
        device = "cuda" if config.face_pool.num_gpus else "cpu"
        self.landmarker = FaceLandmarker(config.landmarker_model) if config.landmarker_model else None
        self.super_resolution = (
            None if config.upscaler == "lanczos" else SuperResolution(config.upscaler, device)
        )

    def __call__(self, table: pa.Table) -> pa.Table:
        """Aligns the rows."""
        return update_accepted(table, "align", self.prepare)

    def prepare(self, row: Row) -> Row:
        """Returns the aligned image and what the landmarks say, or the reason of the reject."""
        image = decode_image(row["image"])
        reading = self.landmarker.read(image) if self.landmarker else None
        if self.landmarker and reading is None:
            return {"reason": "no_face", "detail": "the landmarker found no face"}
        face = encode_image(self._resized(image, reading))
        if reading is None:
            return {"image": face}
        pose = pose_of(reading)
        return {
            "image": face,
            "action_units": reading.action_units if self.config.au_labeler == "mediapipe" else None,
            "attributes": {"pose": pose} if pose else {},
        }

    def _resized(self, image: Image.Image, reading: FaceReading | None) -> Image.Image:
        size = self.config.image_size
        enlarged = image
        if self.super_resolution and min(image.size) < size:
            enlarged = self.super_resolution(image)
        if reading is None or not self.config.align:
            return resize_square(enlarged, size)
        return align_face(enlarged, reading.keypoints * (enlarged.width / image.width), size)


def pose_of(reading: FaceReading) -> str | None:
    """Names the pose as seen in the image (`left`: towards its left edge); None if it is not clear."""
    pitch = reading.pitch - LEVEL_PITCH
    if max(abs(reading.yaw), abs(pitch)) < FRONTAL:
        return "frontal"
    if abs(reading.yaw) > max(TURNED, abs(pitch)):
        return "right" if reading.yaw > 0 else "left"
    if abs(pitch) > TURNED:
        return "up" if pitch > 0 else "down"
    return None
