"""Landmarks, head pose and action units of a face, from MediaPipe's face landmarker.

Blendshape scores are not FACS intensities. `BLENDSHAPE_UNITS` maps them linearly: `rest`, the median over
neutral faces, is intensity 0, and `full`, the 98th percentile over 1,469 faces of FER2013, is intensity 1.
Units that the model cannot tell are unknown (NaN), never 0: cheekSquint and noseSneer are always 0 (AU06,
AU09); mouthFrown, mouthDimple and mouthFunnel hardly move (AU15, AU14, AU22).
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from synfer_ray.errors import InputError, require
from synfer_ray.faces.images import GREY
from synfer_ray.taxonomy.action_units import au_vector

DETECTOR_SIDE = 256
KEYPOINTS = {"right_eye": 468, "left_eye": 473, "nose": 1, "mouth_right": 61, "mouth_left": 291}
UPPER_LIP, LOWER_LIP = 13, 14


class BlendshapeUnit(NamedTuple):
    """How one blendshape, or the mean of its left and right half, becomes an intensity."""

    blendshape: str
    rest: float
    full: float
    halves: bool = True


# `lipGap` is no blendshape but the distance of the inner lips over that of the eyes. mouthPucker rests
# above its median: many small closed mouths score up to a half.
BLENDSHAPE_UNITS = {
    "AU01": BlendshapeUnit("browInnerUp", 0.04, 0.93, halves=False),
    "AU02": BlendshapeUnit("browOuterUp", 0.15, 0.90),
    "AU04": BlendshapeUnit("browDown", 0.02, 0.63),
    "AU05": BlendshapeUnit("eyeWide", 0.01, 0.28),
    "AU07": BlendshapeUnit("eyeSquint", 0.28, 0.69),
    "AU10": BlendshapeUnit("mouthUpperUp", 0.0, 0.75),
    "AU12": BlendshapeUnit("mouthSmile", 0.0, 0.93),
    "AU16": BlendshapeUnit("mouthLowerDown", 0.0, 0.91),
    "AU17": BlendshapeUnit("mouthShrugLower", 0.02, 0.33, halves=False),
    "AU18": BlendshapeUnit("mouthPucker", 0.50, 0.97, halves=False),
    "AU20": BlendshapeUnit("mouthStretch", 0.0, 0.48),
    "AU24": BlendshapeUnit("mouthPress", 0.02, 0.23),
    "AU25": BlendshapeUnit("lipGap", 0.03, 0.55, halves=False),
    "AU26": BlendshapeUnit("jawOpen", 0.01, 0.65, halves=False),
}
SIDED_UNITS = {
    f"AU{letter}{number}": unit._replace(blendshape=f"{unit.blendshape}{side}", halves=False)
    for number in ("02", "04", "10", "12")
    for unit in [BLENDSHAPE_UNITS[f"AU{number}"]]
    for letter, side in (("L", "Left"), ("R", "Right"))
}


@dataclass(frozen=True)
class FaceReading:
    """What the landmarker sees in one image.

    Attributes:
        action_units: float32 [41], intensities, NaN = unknown.
        keypoints: float32 [5, 2] pixels, in the order of `KEYPOINTS`; right is the person's right.
        box: float32 [4] pixels: left, top, right and bottom of all landmarks.
        yaw: degrees, positive when the face turns towards the right edge of the image.
        pitch: degrees, positive when the face looks up.
    """

    action_units: np.ndarray
    keypoints: np.ndarray
    box: np.ndarray
    yaw: float
    pitch: float


def blendshape_action_units(scores: dict[str, float]) -> np.ndarray:
    """Maps blendshape scores by name (with `lipGap`) to action units, float32 [41], NaN = unknown."""
    units = BLENDSHAPE_UNITS | SIDED_UNITS
    return au_vector({name: _intensity(unit, scores) for name, unit in units.items()}, fill=np.nan)


class FaceLandmarker:
    """MediaPipe's face landmarker on single RGB images.

    Args:
        model_path: the `.task` file.
        min_confidence: below the library's 0.5, because half-hidden faces are still faces.
        max_faces: how many faces of an image are read.

    Raises:
        InputError: mediapipe is not installed, or the file is missing or not a landmarker.
    """

    def __init__(self, model_path: str, min_confidence: float = 0.2, max_faces: int = 1):
        os.environ.setdefault("GLOG_minloglevel", "2")
        self.mediapipe = require("mediapipe", extra="mediapipe")
        if not Path(model_path).is_file():
            raise InputError(f"missing face landmarker model: {model_path}")
        from mediapipe.tasks.python import BaseOptions, vision

        options = vision.FaceLandmarkerOptions(
            base_options=BaseOptions(model_asset_path=model_path),
            num_faces=max_faces,
            output_face_blendshapes=True,
            output_facial_transformation_matrixes=True,
            min_face_detection_confidence=min_confidence,
            min_face_presence_confidence=min_confidence,
        )
        try:
            self.landmarker = vision.FaceLandmarker.create_from_options(options)
        except (RuntimeError, ValueError) as error:
            raise InputError(f"{model_path} is not a face landmarker: {error}") from error

    def read(self, image: Image.Image) -> FaceReading | None:
        """Reads the most certain face, or None if there is no face."""
        return next(iter(self.read_all(image)), None)

    def read_all(self, image: Image.Image) -> list[FaceReading]:
        """Reads up to `max_faces` faces, the most certain one first."""
        canvas, scale, border = _framed(image)
        pixels = self.mediapipe.Image(
            image_format=self.mediapipe.ImageFormat.SRGB, data=np.asarray(canvas, dtype=np.uint8)
        )
        found = self.landmarker.detect(pixels)
        faces = zip(found.face_landmarks, found.face_blendshapes, found.facial_transformation_matrixes)
        return [
            _reading(
                np.array([(point.x, point.y) for point in landmarks]) * canvas.size,
                {category.category_name: category.score for category in blendshapes},
                np.asarray(pose)[:3, 2],
                scale,
                border,
            )
            for landmarks, blendshapes, pose in faces
        ]


def _reading(
    points: np.ndarray, scores: dict[str, float], forward: np.ndarray, scale: float, border: int
) -> FaceReading:
    """Puts together what was found on the framed image: landmarks [478, 2], scores and viewing direction."""
    scores["lipGap"] = _distance(points, UPPER_LIP, LOWER_LIP) / _distance(
        points, KEYPOINTS["right_eye"], KEYPOINTS["left_eye"]
    )
    places = ((points - border) / scale).astype(np.float32)
    return FaceReading(
        action_units=blendshape_action_units(scores),
        keypoints=places[list(KEYPOINTS.values())],
        box=np.concatenate([places.min(axis=0), places.max(axis=0)]),
        yaw=float(np.degrees(np.arctan2(forward[0], forward[2]))),
        pitch=float(np.degrees(np.arcsin(np.clip(forward[1], -1.0, 1.0)))),
    )


def _framed(image: Image.Image) -> tuple[Image.Image, float, int]:
    """Enlarges a small image and adds a grey border: the detector misses faces that fill the whole frame."""
    scale = max(DETECTOR_SIDE / max(image.size), 1.0)
    width, height = round(image.width * scale), round(image.height * scale)
    border = 3 * max(width, height) // 16
    canvas = Image.new("RGB", (width + 2 * border, height + 2 * border), GREY)
    canvas.paste(image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC), (border, border))
    return canvas, scale, border


def _intensity(unit: BlendshapeUnit, scores: dict[str, float]) -> float:
    if unit.halves:
        score = (scores[f"{unit.blendshape}Left"] + scores[f"{unit.blendshape}Right"]) / 2
    else:
        score = scores[unit.blendshape]
    return min(max((score - unit.rest) / (unit.full - unit.rest), 0.0), 1.0)


def _distance(points: np.ndarray, a: int, b: int) -> float:
    return float(np.linalg.norm(points[a] - points[b]))
