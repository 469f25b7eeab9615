"""Face images as bytes: safe decoding, resizing, hashes and sharpness. No image raises but `BadImage`."""

import hashlib
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
MAX_PIXELS = 64_000_000
GREY = (128, 128, 128)


class BadImage(Exception):
    """An image that cannot be used: `reason` is the word it is counted under, `detail` what was seen."""

    def __init__(self, reason: str, detail: str):
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


def decode_image(data: bytes, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decodes PNG, JPEG, WEBP or BMP bytes to RGB, upright, with transparency laid on mid-grey.

    The pixel count is read from the header, before any pixel is decoded.

    Raises:
        BadImage: `empty_file`, `unknown_format`, `too_many_pixels` or `damaged`.
    """
    if not data:
        raise BadImage("empty_file", "no bytes")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise BadImage("too_many_pixels", str(error)) from error
    except UnidentifiedImageError as error:  # its text names an address in memory
        raise BadImage("unknown_format", f"not one of {', '.join(FORMATS)}") from error
    except Exception as error:
        raise BadImage("unknown_format", f"not one of {', '.join(FORMATS)}: {error}") from error
    if image.width * image.height > max_pixels:
        raise BadImage("too_many_pixels", f"{image.width}x{image.height}, at most {max_pixels} pixels")
    try:
        return _upright_rgb(image)
    except Exception as error:
        raise BadImage("damaged", f"{image.format}: {error}") from error


def encode_image(image: Image.Image) -> bytes:
    """Encodes to PNG."""
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def resize_square(image: Image.Image, size: int) -> Image.Image:
    """Cuts the central square and resizes it to `size` x `size` pixels (Lanczos)."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = (left, top, left + side, top + side)
    return image.resize((size, size), Image.Resampling.LANCZOS, box=box)


def square_pixels(image: Image.Image, size: int) -> NDArray[np.float32]:
    """Returns what a model sees of an RGB image: its central square, float32 [3, size, size] in [-1, 1]."""
    square = np.asarray(resize_square(image, size), dtype=np.float32)
    return np.ascontiguousarray(square.transpose(2, 0, 1)) / 127.5 - 1


def image_hash(image: Image.Image) -> str:
    """SHA-256 of size and pixels: equal for equal pictures, whatever file format they came in."""
    return hashlib.sha256(f"{image.mode} {image.size} ".encode() + image.tobytes()).hexdigest()


def perceptual_hash(image: Image.Image) -> int:
    """64-bit difference hash: is each cell of an 8x9 grey thumbnail brighter than its right neighbour?"""
    thumbnail = np.asarray(image.convert("L").resize((9, 8), Image.Resampling.BOX))
    bits = thumbnail[:, :-1] > thumbnail[:, 1:]
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def sharpness(image: Image.Image, side: int = 48) -> float:
    """Variance of the Laplacian over the variance of the grey image, at `side` pixels; a flat image has 0.

    The ratio does not depend on brightness or contrast, so that dark skin or dim light is not taken for blur.
    """
    grey = np.asarray(resize_square(image.convert("L"), side), dtype=np.float32)
    centre = grey[1:-1, 1:-1]
    neighbours = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float((neighbours - 4 * centre).var() / max(grey.var(), 1.0))


def _upright_rgb(image: Image.Image) -> Image.Image:
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (*GREY, 255)), image).convert("RGB")
    return image.convert("RGB")
