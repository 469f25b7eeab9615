"""Tensors of the Open Inference Protocol: arrays, their little-endian bytes, and their JSON values.

Nothing is allocated for a tensor before its shape has been held against the bytes that really came.
"""

import base64
import binascii
import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synfer_ray.serving.refusal import bad_request

DTYPES: dict[str, np.dtype[Any]] = {"UINT8": np.dtype("u1"), "FP32": np.dtype("<f4")}
"""The numeric datatypes of our inputs and outputs; the other one is BYTES."""
MAX_RANK = 8
FILES = ("image", "attention")
"""BYTES tensors whose elements are files: JSON, which is text, carries them as base64."""


@dataclass(frozen=True)
class Tensor:
    """A named array: uint8, float32, or objects that are `bytes`."""

    name: str
    data: NDArray[Any]

    @property
    def datatype(self) -> str:
        """UINT8, FP32 or BYTES."""
        return next((name for name, dtype in DTYPES.items() if dtype == self.data.dtype), "BYTES")


def bytes_array(elements: Sequence[bytes]) -> NDArray[Any]:
    """Returns an object array [N], which numpy would not make of byte strings by itself."""
    array = np.empty(len(elements), dtype=object)
    array[:] = elements
    return array


def element_count(name: str, datatype: Any, shape: Any) -> int:
    """Checks what a request says about a tensor, and returns its number of elements.

    Raises:
        Refusal: another datatype than those of our inputs, or a shape that is not a list of positive numbers.
    """
    if datatype not in ("BYTES", *DTYPES):
        raise bad_request(f"input {name!r}: datatype {datatype!r} is not one of BYTES, {', '.join(DTYPES)}")
    if not isinstance(shape, list) or len(shape) > MAX_RANK or not all(_is_size(side) for side in shape):
        raise bad_request(
            f"input {name!r}: shape {str(shape)[:100]} is not a list of up to {MAX_RANK} positive sizes"
        )
    return math.prod(shape)


def from_raw(name: str, datatype: str, shape: list[int], raw: bytes | memoryview) -> Tensor:
    """Reads a tensor from its binary form; BYTES elements each follow their length, 4 bytes little-endian.

    Raises:
        Refusal: the bytes do not fit datatype and shape.
    """
    count = element_count(name, datatype, shape)
    if datatype == "BYTES":
        return Tensor(name, bytes_array(_split(name, raw, count)).reshape(shape))
    expected = count * DTYPES[datatype].itemsize
    if len(raw) != expected:
        raise bad_request(
            f"input {name!r}: {datatype} of shape {shape} is {expected} bytes long, but {len(raw)} came"
        )
    return Tensor(name, np.frombuffer(raw, DTYPES[datatype]).reshape(shape))


def from_values(name: str, datatype: str, shape: list[int], values: Any) -> Tensor:
    """Reads a tensor from JSON values, flat or nested by rows.

    Raises:
        Refusal: the values do not fit datatype and shape.
    """
    count = element_count(name, datatype, shape)
    flat = _flat(name, values)
    if len(flat) != count:
        raise bad_request(f"input {name!r}: shape {shape} has {count} elements, but data has {len(flat)}")
    if datatype == "BYTES":
        return Tensor(name, bytes_array([_element(name, value) for value in flat]).reshape(shape))
    if not set(map(type, flat)) <= ({int} if datatype == "UINT8" else {int, float}):
        raise bad_request(f"input {name!r}: data holds values that are not {datatype} numbers")
    if datatype == "UINT8" and flat and not 0 <= min(flat) <= max(flat) <= 255:
        raise bad_request(f"input {name!r}: data holds values outside 0..255")
    try:
        with np.errstate(over="ignore"):  # becomes infinite, and is refused as a pixel
            return Tensor(name, np.array(flat, DTYPES[datatype]).reshape(shape))
    except OverflowError as error:
        raise bad_request(f"input {name!r}: data holds values that are not {datatype} numbers") from error


def to_raw(tensor: Tensor) -> bytes:
    """Writes the binary form of a tensor."""
    if tensor.datatype == "BYTES":
        return b"".join(struct.pack("<I", len(element)) + element for element in tensor.data.flat)
    return np.ascontiguousarray(tensor.data).tobytes()


def to_values(tensor: Tensor) -> list[Any]:
    """Writes the flat JSON values of a tensor; what is not finite becomes null."""
    if tensor.name in FILES:
        return [base64.b64encode(element).decode() for element in tensor.data.flat]
    if tensor.datatype == "BYTES":
        return [element.decode() for element in tensor.data.flat]
    values = tensor.data.ravel().tolist()
    return [value if math.isfinite(value) else None for value in values]


def _is_size(value: Any) -> bool:
    return type(value) is int and 1 <= value < 2**31


def _split(name: str, raw: bytes | memoryview, count: int) -> list[bytes]:
    view = memoryview(raw)
    if count * 4 > len(view):
        raise bad_request(f"input {name!r}: {len(view)} bytes cannot hold {count} elements")
    elements, place = [], 0
    for _ in range(count):
        start = place + 4
        if start > len(view):
            raise bad_request(f"input {name!r}: its bytes end before its {count} elements do")
        place = start + struct.unpack("<I", view[place:start])[0]
        if place > len(view):
            raise bad_request(f"input {name!r}: an element reaches beyond the bytes that came")
        elements.append(bytes(view[start:place]))
    if place != len(view):
        raise bad_request(f"input {name!r}: {len(view) - place} bytes remain after its {count} elements")
    return elements


def _flat(name: str, values: Any) -> list[Any]:
    if not isinstance(values, list):
        raise bad_request(f"input {name!r}: data is not a list")
    for _ in range(MAX_RANK):
        if not any(isinstance(value, list) for value in values):
            return values
        if not all(isinstance(value, list) for value in values):
            raise bad_request(f"input {name!r}: data mixes values and lists")
        values = [value for row in values for value in row]
    raise bad_request(f"input {name!r}: data is nested deeper than {MAX_RANK} lists")


def _element(name: str, value: Any) -> bytes:
    if not isinstance(value, str):
        raise bad_request(f"input {name!r}: data holds values that are not strings")
    try:
        return base64.b64decode(value, validate=True) if name in FILES else value.encode()
    except (binascii.Error, UnicodeEncodeError, ValueError) as error:
        wanted = "base64" if name in FILES else "text"
        raise bad_request(f"input {name!r}: data holds strings that are not {wanted}: {error}") from error
