"""Face alignment: a similarity transform that puts a face where a model expects it.

Expression classifiers learn from faces cropped in one way and are lost on others: given a portrait, some
answer one class for all. `CROPS` names the ways. The template `arcface` is that of face-recognition data (112
pixels), `fer` the median FER2013 crop. `box` is that of the landmarks, `mtcnn` a looser one: a side of 1.2
boxes; two published training samples of OpenGraphAU have 1.05 and 1.27, its demo pictures 1.5 to 1.7.
"""

from dataclasses import dataclass

import numpy as np
from PIL import Image

# Right eye, left eye, middle of the mouth, as fractions of the side: the median FER2013 crop.
CANONICAL = np.array([0.32 + 0.39j, 0.68 + 0.39j, 0.50 + 0.77j])
# Right eye, left eye, nose, mouth right, mouth left.
ARCFACE = (
    np.array(
        [38.2946 + 51.6963j, 73.5318 + 51.5014j, 56.0252 + 71.7366j, 41.5493 + 92.3655j, 70.7299 + 92.2041j]
    )
    / 112
)


@dataclass(frozen=True)
class Crop:
    """One way to cut out a face.

    Attributes:
        template: where three or five keypoints go, as fractions of the side; None cuts the landmarks' box.
        margin: for a box, the share of its longer side that is added at each end.
    """

    template: np.ndarray | None = None
    margin: float = 0.0


CROPS = {"fer": Crop(CANONICAL), "arcface": Crop(ARCFACE), "box": Crop(), "mtcnn": Crop(margin=0.1)}


def crop_face(
    image: Image.Image, keypoints: np.ndarray, box: np.ndarray, size: int, crop: Crop
) -> Image.Image:
    """Cuts a face out in one of the ways of `CROPS`; eyes end up level, what lies outside repeats the edge.

    Args:
        image: RGB, any size.
        keypoints: [5, 2] pixels: right eye, left eye, nose, mouth right, mouth left.
        box: [4] pixels of all landmarks: left, top, right, bottom.
        size: side of the result in pixels.
    """
    if crop.template is not None:
        return align_face(image, keypoints, size, crop.template)
    right_eye, left_eye = keypoints[:2] @ np.array([1, 1j])
    level = np.conj(left_eye - right_eye) / abs(left_eye - right_eye)
    left, top, right, bottom = box
    side = max(right - left, bottom - top) * (1 + 2 * crop.margin)
    rotation = level * size / side
    centre = (left + right) / 2 + (top + bottom) / 2 * 1j
    return _warp(image, complex(rotation), complex((0.5 + 0.5j) * size - rotation * centre), size)


def align_face(
    image: Image.Image, keypoints: np.ndarray, size: int, template: np.ndarray = CANONICAL
) -> Image.Image:
    """Turns, scales and moves the face to its canonical place; what lies outside repeats the image's edge.

    With three points the middle of the mouth counts, not its corners, so that a broad smile does not shrink
    the face. An image is never shrunk below the frame: a tight crop stays tight rather than getting a broad
    border.

    Args:
        image: RGB, any size.
        keypoints: [5, 2] pixels: right eye, left eye, nose, mouth right, mouth left.
        size: side of the result in pixels.
        template: where they go, as fractions of the side; three points or five.
    """
    rotation, shift = similarity(keypoints, size, size / min(image.size), template)
    return _warp(image, rotation, shift, size)


def similarity(
    keypoints: np.ndarray, size: int, min_scale: float = 0.0, template: np.ndarray = CANONICAL
) -> tuple[complex, complex]:
    """Returns the least-squares similarity to the template: `target = rotation * point + shift`.

    Points are complex numbers. The modulus of `rotation` is the scale, which is raised to `min_scale`.
    """
    points = keypoints @ np.array([1, 1j])
    if len(template) == 3:
        points = np.array([points[0], points[1], (points[3] + points[4]) / 2])
    target = template * size
    centred = points - points.mean()
    rotation = np.vdot(centred, target - target.mean()) / np.vdot(centred, centred).real
    rotation *= max(min_scale / abs(rotation), 1.0)
    return complex(rotation), complex(target.mean() - rotation * points.mean())


def _warp(image: Image.Image, rotation: complex, shift: complex, size: int) -> Image.Image:
    """Draws `rotation * point + shift` on a square of `size` pixels."""
    scale = abs(rotation)
    if scale < 1.0:
        shrunk = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
        image = image.resize(shrunk, Image.Resampling.LANCZOS)
        rotation /= scale
    back = 1.0 / rotation
    origin = -shift * back
    border = size
    padded = Image.fromarray(
        np.pad(np.asarray(image), ((border, border), (border, border), (0, 0)), mode="edge")
    )
    matrix = (back.real, -back.imag, origin.real + border, back.imag, back.real, origin.imag + border)
    return padded.transform((size, size), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
