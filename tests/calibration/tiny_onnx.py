"""A linear classifier as an ONNX file, written byte by byte (protobuf wire format): no exporter is needed."""

import struct
from collections.abc import Sequence

import numpy as np

Field = tuple[int, "int | bytes | str"]


def linear_model(weights: np.ndarray, input_shape: Sequence[int | str]) -> bytes:
    """Flattens the input [N, ...] and multiplies it with `weights` [inputs, classes]."""
    tensor = message(
        *((1, size) for size in weights.shape),
        (2, 1),  # float32
        (8, "weights"),
        (9, weights.astype("<f4").tobytes()),
    )
    graph = message(
        (1, message((1, "images"), (2, "flat"), (4, "Flatten"))),
        (1, message((1, "flat"), (1, "weights"), (2, "scores"), (4, "MatMul"))),
        (2, "linear"),
        (5, tensor),
        (11, value_info("images", input_shape)),
        (12, value_info("scores", ["N", weights.shape[1]])),
    )
    opset = message((1, ""), (2, 17))
    return message((1, 8), (7, graph), (8, opset))


def value_info(name: str, shape: Sequence[int | str]) -> bytes:
    dimensions = [message((1, size) if isinstance(size, int) else (2, size)) for size in shape]
    tensor_type = message((1, 1), (2, message(*((1, dimension) for dimension in dimensions))))
    return message((1, name), (2, message((1, tensor_type))))


def message(*fields: Field) -> bytes:
    return b"".join(_field(number, value) for number, value in fields)


def _field(number: int, value: int | bytes | str) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    out = b""
    while value > 127:
        out += struct.pack("B", value & 127 | 128)
        value >>= 7
    return out + struct.pack("B", value)
