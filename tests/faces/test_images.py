import io
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFilter

from synfer_ray.faces.images import (
    BadImage,
    decode_image,
    encode_image,
    image_hash,
    perceptual_hash,
    resize_square,
    sharpness,
)


def noise(side: int = 48, seed: int = 0, width: int | None = None) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (side, width or side, 3), dtype=np.uint8))


def encoded(image: Image.Image, format: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("format", ["PNG", "BMP", "WEBP"])
def test_lossless_formats_decode_to_the_same_pixels(format):
    image = noise()
    decoded = decode_image(
        encoded(image, format, lossless=True) if format == "WEBP" else encoded(image, format)
    )
    assert decoded.mode == "RGB"
    assert decoded.tobytes() == image.tobytes()


def test_encode_is_lossless():
    assert decode_image(encode_image(noise())).tobytes() == noise().tobytes()


@pytest.mark.parametrize("mode", ["L", "P", "1", "CMYK", "LA", "RGBA", "I;16"])
def test_every_mode_becomes_rgb(mode):
    image = noise().convert("L").convert(mode) if mode == "I;16" else noise().convert(mode)
    format = "JPEG" if mode == "CMYK" else "PNG"
    assert decode_image(encoded(image, format)).mode == "RGB"


def test_transparent_pixels_become_grey():
    assert (
        decode_image(encoded(Image.new("RGBA", (4, 4), (255, 0, 0, 0)), "PNG")).getpixel((0, 0)) == (128,) * 3
    )


@pytest.mark.parametrize(
    "data", [b"", b"no image at all", encoded(noise(), "GIF"), encoded(noise(), "PNG")[:60]]
)
def test_a_bad_file_is_told_in_the_same_words_each_time(data):
    details = set()
    for _ in range(2):
        with pytest.raises(BadImage) as bad:
            decode_image(bytearray(data))
        details.add(bad.value.detail)
    (detail,) = details
    assert "0x" not in detail


def test_a_photo_held_sideways_is_turned_upright():
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = decode_image(encoded(noise(32, width=64), "JPEG", exif=exif))
    assert decoded.size == (32, 64)


def huge_png(side: int) -> bytes:
    """A true PNG header of side x side pixels in front of too little data."""
    small = bytearray(encoded(Image.new("L", (8, 8)), "PNG"))
    small[16:24] = side.to_bytes(4, "big") * 2

    small[29:33] = zlib.crc32(bytes(small[12:29])).to_bytes(4, "big")
    return bytes(small)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty_file"),
        (b"no image at all", "unknown_format"),
        (encoded(noise(), "GIF"), "unknown_format"),
        (encoded(noise(), "PNG")[:3000], "damaged"),
        (encoded(noise(), "JPEG")[:700], "damaged"),
        (huge_png(9_000), "too_many_pixels"),
        (huge_png(14_143), "too_many_pixels"),
        (huge_png(40_000), "too_many_pixels"),
    ],
)
def test_bad_images_name_their_reason(data, reason):
    with pytest.raises(BadImage) as caught:
        decode_image(data)
    assert caught.value.reason == reason
    assert caught.value.detail


def test_resize_square_takes_the_centre():
    image = Image.new("RGB", (90, 30), "red")
    image.paste("blue", (30, 0, 60, 30))
    square = np.asarray(resize_square(image, 16))
    assert square.shape == (16, 16, 3)
    assert (square[:, 4:-4] == (0, 0, 255)).all()


def test_image_hash_sees_pixels_not_files():
    image = noise()
    assert image_hash(decode_image(encoded(image, "BMP"))) == image_hash(decode_image(encoded(image, "PNG")))
    assert image_hash(noise(seed=1)) != image_hash(image)
    assert image_hash(noise(2, width=8)) != image_hash(
        Image.fromarray(np.asarray(noise(2, width=8)).reshape(8, 2, 3))
    )


def test_perceptual_hash_is_the_sign_of_the_horizontal_gradient():
    ramp = np.tile(np.linspace(0, 255, 90, dtype=np.uint8), (80, 1))
    assert perceptual_hash(Image.fromarray(ramp)) == 0
    assert perceptual_hash(Image.fromarray(ramp[:, ::-1].copy())) == 2**64 - 1


def test_perceptual_hash_survives_brightness_and_size_but_not_another_picture():
    smooth = noise(8).resize((96, 96), Image.Resampling.BICUBIC)
    brighter = smooth.point(lambda value: 60 + value // 2)
    differing = [
        (perceptual_hash(smooth) ^ perceptual_hash(other)).bit_count()
        for other in (brighter, smooth.resize((64, 64)), noise(8, seed=1).resize((96, 96)))
    ]
    assert differing[0] <= 2 and differing[1] <= 4 and differing[2] > 16


def test_sharpness_falls_with_blur_and_not_with_light():
    image = noise()
    darker = image.point(lambda value: value // 3)
    assert sharpness(Image.new("RGB", (48, 48), "grey")) == 0
    assert sharpness(image.filter(ImageFilter.GaussianBlur(2))) < 0.1 * sharpness(image)
    assert sharpness(darker) == pytest.approx(sharpness(image), rel=0.02)
