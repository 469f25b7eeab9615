"""Face alignment: a similarity transform that puts the eyes and the mouth at fixed places."""

import numpy as np
from PIL import Image

# Right eye, left eye, middle of the mouth, as fractions of the side: the median FER2013 crop.
CANONICAL = np.array([0.32 + 0.39j, 0.68 + 0.39j, 0.50 + 0.77j])


def align_face(image: Image.Image, keypoints: np.ndarray, size: int) -> Image.Image:
    """Turns, scales and moves the face to its canonical place; what lies outside repeats the image's edge.

    The middle of the mouth counts, not its corners, so that a broad smile does not shrink the face. An image
    is never shrunk below the frame: a tight crop stays tight rather than getting a broad border.

    Args:
        image: RGB, any size.
        keypoints: [5, 2] pixels: right eye, left eye, nose, mouth right, mouth left.
        size: side of the result in pixels.
    """
    rotation, shift = similarity(keypoints, size, min_scale=size / min(image.size))
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


def similarity(keypoints: np.ndarray, size: int, min_scale: float = 0.0) -> tuple[complex, complex]:
    """Returns the least-squares similarity to the canonical face: `target = rotation * point + shift`.

    Points are complex numbers. The modulus of `rotation` is the scale, which is raised to `min_scale`.
    """
    right_eye, left_eye, _, mouth_right, mouth_left = keypoints @ np.array([1, 1j])
    points = np.array([right_eye, left_eye, (mouth_right + mouth_left) / 2])
    target = CANONICAL * size
    centred = points - points.mean()
    rotation = np.vdot(centred, target - target.mean()) / np.vdot(centred, centred).real
    rotation *= max(min_scale / abs(rotation), 1.0)
    return complex(rotation), complex(target.mean() - rotation * points.mean())
