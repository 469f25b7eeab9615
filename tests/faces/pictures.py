"""Small pictures that pass every filter and differ from each other."""

import numpy as np
from PIL import Image

from synfer_ray.faces.images import encode_image


def picture(seed: int, side: int = 48) -> Image.Image:
    """Random pixels: sharp, and unlike those of every other seed."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def png(seed: int, side: int = 48) -> bytes:
    """The same as a PNG file."""
    return encode_image(picture(seed, side))
