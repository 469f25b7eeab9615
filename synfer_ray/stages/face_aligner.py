"""Finds the face, brings it to its canonical place and size, and reads its action units and pose."""

from dataclasses import replace

import pyarrow as pa
from PIL import Image

from synfer_ray.config import FETextConfig
from synfer_ray.faces.images import decode_image, encode_image
from synfer_ray.faces.landmarks import FaceReading
from synfer_ray.faces.preparation import FacePreparation, cut_out
from synfer_ray.faces.super_resolution import SuperResolution
from synfer_ray.stages.face_rows import Row, update_accepted

LEVEL_PITCH, FRONTAL, TURNED = -5.0, 12.0, 18.0
"""Degrees: the pitch that MediaPipe gives a level face; less is frontal; more is turned."""


class FaceAligner:
    """A stage: a square PNG of `image_size` for every row, or a reject by `no_face` or `many_faces`.

    Without `landmarker_model` images are only cut square and resized. The action units that it reads are
    kept if it is the labeller; the pose is kept always.

    Raises:
        InputError: a model file is missing or not usable.
    """

    def __init__(self, config: FETextConfig):
        self.config = config
        device = "cuda" if config.face_pool.num_gpus else "cpu"
        self.preparation = (
            FacePreparation(config.landmarker_model, config.no_face, config.many_faces)
            if config.landmarker_model
            else None
        )
        self.super_resolution = (
            None if config.upscaler == "lanczos" else SuperResolution(config.upscaler, device)
        )

    def __call__(self, table: pa.Table) -> pa.Table:
        """Aligns the rows."""
        return update_accepted(table, "align", self.prepare)

    def prepare(self, row: Row) -> Row:
        """Returns the aligned image and what the landmarks say.

        Raises:
            BadImage: there is no image, or no face that counts.
        """
        image = decode_image(row["image"])
        reading = self.preparation.find(image) if self.preparation else None
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
        if reading is not None:
            scale = enlarged.width / image.width
            reading = replace(reading, keypoints=reading.keypoints * scale, box=reading.box * scale)
        return cut_out(enlarged, reading, self.config.crop if self.config.align else "", size)


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
