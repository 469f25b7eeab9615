"""From what a caller sends to what the models see: image files or pixels become faces of one size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from synfer_ray.config import LimitsConfig
from synfer_ray.errors import InputError, choose
from synfer_ray.faces.images import BadImage, decode_image, square_pixels
from synfer_ray.serving.oip.tensors import Tensor
from synfer_ray.serving.refusal import Refusal, bad_request
from synfer_ray.taxonomy.expressions import parse_expression

INPUTS = ("image", "pixels", "label")


@dataclass(frozen=True, eq=False)
class Face:
    """One face: pixels [3, S, S] in [-1, 1], the label to vote on, and whether attention is wanted."""

    pixels: NDArray[np.float32]
    label: str | None = None
    attention: bool = False


def face_of_file(data: bytes, what: str, label: str, size: int, max_pixels: int) -> Face:
    """Makes a face of an image file; an empty label stands for none.

    Raises:
        Refusal: the bytes are no image that we read, it has too many pixels, or the label is no expression.
    """
    try:
        image = decode_image(data, max_pixels)
    except BadImage as error:
        raise bad_request(f"{what}: {error.reason}: {error.detail[:200]}") from error
    return Face(square_pixels(image, size), expression(label, what))


def expression(name: str, what: str) -> str | None:
    """Returns the expression that a label means, None for an empty one.

    Raises:
        Refusal: it means none.
    """
    try:
        return parse_expression(name[:100]) if name else None
    except InputError as error:
        raise bad_request(f"{what}: {error}") from error


def faces_of_tensors(inputs: Mapping[str, Tensor], size: int, limits: LimitsConfig) -> list[Face]:
    """Makes the faces of an inference request, from `image` (BYTES [N]) or `pixels` ([N, H, W, 3]).

    Raises:
        Refusal: an input is unknown, missing, of another datatype or shape, or holds values it may not hold.
    """
    for name in inputs:
        try:
            choose(name, INPUTS, "input")
        except InputError as error:
            raise bad_request(str(error)) from error
    if ("image" in inputs) == ("pixels" in inputs):
        raise bad_request("one of the inputs image and pixels is needed, and not both")
    images = inputs.get("image") or inputs["pixels"]
    count = len(images.data) if images.data.ndim else 0
    check_count(count, limits)
    labels = _labels(inputs.get("label"), count)
    if images.name == "image":
        _check(images, ("BYTES",), "[N]", images.data.ndim == 1)
        return [
            face_of_file(data, f"image {place}", label, size, limits.max_pixels)
            for place, (data, label) in enumerate(zip(images.data, labels))
        ]
    return [
        Face(square_pixels(image, size), expression(label, f"label {place}"))
        for place, (image, label) in enumerate(zip(_pictures(images, limits.max_pixels), labels))
    ]


def check_count(count: int, limits: LimitsConfig) -> None:
    """Raises:
    Refusal: a request has no face, or too many.
    """
    if not 1 <= count <= limits.max_faces:
        raise bad_request(f"a request holds 1 to {limits.max_faces} faces, not {count}")


def _labels(tensor: Tensor | None, count: int) -> Sequence[str]:
    if tensor is None:
        return [""] * count
    _check(tensor, ("BYTES",), f"[{count}]", tensor.data.shape == (count,))
    try:
        return [element.decode() for element in tensor.data]
    except UnicodeDecodeError as error:
        raise bad_request(f"label: {error}") from error


def _pictures(tensor: Tensor, max_pixels: int) -> list[Image.Image]:
    data: NDArray[Any] = tensor.data
    fits = data.ndim == 4 and data.shape[3] == 3 and 0 not in data.shape
    _check(tensor, ("UINT8", "FP32"), "[N, H, W, 3]", fits)
    if data.shape[1] * data.shape[2] > max_pixels:
        raise Refusal(413, f"pixels: {data.shape[2]}x{data.shape[1]}, at most {max_pixels} pixels")
    if tensor.datatype == "FP32":
        if not ((data >= 0) & (data <= 1)).all():  # so NaN is found as well
            raise bad_request("pixels: FP32 values lie in 0..1, and some do not")
        data = (data * 255).round().astype(np.uint8)
    return [Image.fromarray(picture) for picture in data]


def _check(tensor: Tensor, datatypes: Sequence[str], shape: str, fits: bool) -> None:
    if tensor.datatype not in datatypes or not fits:
        raise bad_request(
            f"input {tensor.name} is {' or '.join(datatypes)} {shape}, "
            f"not {tensor.datatype} {list(tensor.data.shape)}"
        )
