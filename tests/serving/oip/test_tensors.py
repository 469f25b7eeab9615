import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from tritonclient.utils import deserialize_bytes_tensor, serialize_byte_tensor

from synfer_ray.serving.oip.tensors import Tensor, bytes_array, from_raw, from_values, to_raw, to_values
from synfer_ray.serving.refusal import Refusal

SHAPES = arrays.array_shapes(max_dims=4, max_side=4)
NUMBERS = st.one_of(
    arrays.arrays(np.uint8, SHAPES),
    arrays.arrays(np.float32, SHAPES, elements=st.floats(width=32, allow_nan=False, allow_infinity=False)),
)


@given(NUMBERS)
def test_numbers_survive_both_forms(array):
    tensor = Tensor("pixels", array)
    shape = list(array.shape)
    for read in (
        from_raw("pixels", tensor.datatype, shape, to_raw(tensor)),
        from_values("pixels", tensor.datatype, shape, json.loads(json.dumps(to_values(tensor)))),
        from_values("pixels", tensor.datatype, shape, array.tolist()),
    ):
        assert read.data.dtype == array.dtype
        np.testing.assert_array_equal(read.data, array)


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5), st.sampled_from(["image", "label"]))
def test_files_and_texts_survive_both_forms(elements, name):
    tensor = Tensor(name, bytes_array(elements))
    raw = to_raw(tensor)
    assert raw == serialize_byte_tensor(tensor.data).item()  # an independent writer, and reader
    assert list(deserialize_bytes_tensor(raw)) == elements
    assert from_raw(name, "BYTES", [len(elements)], raw).data.tolist() == elements
    if name == "image" or all(_is_text(element) for element in elements):
        values = json.loads(json.dumps(to_values(tensor)))
        assert from_values(name, "BYTES", [len(elements)], values).data.tolist() == elements


def test_what_is_not_finite_becomes_null_in_json():
    tensor = Tensor("voters", np.array([0.5, np.nan, np.inf], np.float32))
    assert to_values(tensor) == [0.5, None, None]


@pytest.mark.parametrize(
    ("datatype", "shape", "raw"),
    [
        ("FP32", [2], b"1234567"),
        ("UINT8", [2, 3], b"12345"),
        ("UINT8", [2**31 - 1] * 8, b""),
        ("FP64", [1], b"12345678"),
        (["FP32"], [1], b"1234"),
        ("UINT8", [-1, -1], b"1"),
        ("UINT8", [0, 2**31 - 1, 2**31 - 1, 2**31 - 1], b""),
        ("UINT8", [True], b"1"),
        ("UINT8", [1.0], b"1"),
        ("UINT8", "3", b"123"),
        ("UINT8", [1] * 9, b"1"),
        ("BYTES", [1], b"\x05\0\0\0abc"),
        ("BYTES", [1], b"\x01\0\0\0ab"),
        ("BYTES", [2], b"\x01\0\0\0abc"),
        ("BYTES", [2**31 - 1], b"\0\0\0\0"),
        ("BYTES", [1], b"\xff\xff\xff\xffa"),
    ],
)
def test_bytes_that_do_not_fit_are_refused(datatype, shape, raw):
    with pytest.raises(Refusal, match="'x'"):
        from_raw("x", datatype, shape, raw)


@pytest.mark.parametrize(
    ("datatype", "shape", "values"),
    [
        ("FP32", [2], [1.0]),
        ("FP32", [1], ["1.0"]),
        ("FP32", [1], [None]),
        ("FP32", [1], [10**400]),
        ("FP32", [1], [True]),
        ("UINT8", [1], [256]),
        ("UINT8", [1], [-1]),
        ("UINT8", [1], [1.0]),
        ("UINT8", [2], [[1], 2]),
        ("UINT8", [1], 1),
        ("UINT8", [1], {"0": 1}),
        ("BYTES", [1], [1]),
        ("BYTES", [1], ["no base64!"]),
        ("BYTES", [1], ["\ud800"]),
        ("UINT8", [1], [[[[[[[[[[1]]]]]]]]]]),
    ],
)
def test_values_that_do_not_fit_are_refused(datatype, shape, values):
    with pytest.raises(Refusal, match="'image'"):
        from_values("image", datatype, shape, values)


def _is_text(element):
    try:
        element.decode()
    except UnicodeDecodeError:
        return False
    return True
