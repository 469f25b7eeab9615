"""The JSON and protobuf forms of requests, against tritonclient's own writers and readers."""

import json

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tritonclient.grpc import service_pb2

from synfer_ray.serving.oip import grpc, rest
from synfer_ray.serving.oip import inference_pb2 as messages
from synfer_ray.serving.oip.tensors import Tensor, bytes_array
from synfer_ray.serving.refusal import Refusal

FILES = bytes_array([b"\x89PNG", b""])
LIMIT = 1 << 20
INPUT = {"name": "image", "datatype": "BYTES", "shape": [1], "data": ["iVBO"]}


def inputs(module, binary):
    images = module.InferInput("image", [2], "BYTES")
    pixels = module.InferInput("pixels", [1, 1, 2, 3], "UINT8")
    values = np.arange(6, dtype=np.uint8).reshape(1, 1, 2, 3)
    if module is triton_http:
        images.set_data_from_numpy(FILES, binary_data=True)
        pixels.set_data_from_numpy(values, binary_data=binary)
    else:
        images.set_data_from_numpy(FILES)
        pixels.set_data_from_numpy(values)
    return [images, pixels]


def check(request):
    assert request.id == "seven"
    assert request.inputs["image"].data.tolist() == FILES.tolist()
    assert request.inputs["pixels"].data.tolist() == [[[[0, 1, 2], [3, 4, 5]]]]


@pytest.mark.parametrize("binary", [True, False])
def test_requests_of_the_http_client_are_read(binary):
    wanted = [triton_http.InferRequestedOutput("label", binary_data=binary)]
    body, length = triton_http.InferenceServerClient.generate_request_body(
        inputs(triton_http, binary), outputs=wanted, request_id="seven"
    )
    request, form = rest.read_request(body, None if length is None else str(length), LIMIT)
    check(request)
    assert request.outputs == ["label"] and form["label"] is binary


@pytest.mark.parametrize("binary", [True, False])
def test_answers_are_read_by_the_http_client(binary):
    votes = np.arange(4, dtype=np.float32).reshape(1, 4) / 4
    outputs = [Tensor("label", bytes_array([b"happy"])), Tensor("voters", votes)]
    body, length = rest.write_response("seven", "m", "1", outputs, {"": binary})
    assert (length is None) is not binary
    read = triton_http.InferenceServerClient.parse_response_body(body, header_length=length)
    assert read.get_response()["id"] == "seven" and read.get_response()["model_version"] == "1"
    assert read.as_numpy("label").tolist() == ([b"happy"] if binary else ["happy"])
    np.testing.assert_array_equal(read.as_numpy("voters"), votes)


def test_messages_of_the_grpc_client_are_read_and_answered():
    sent = service_pb2.ModelInferRequest(model_name="m", id="seven")
    for tensor in inputs(triton_grpc, True):
        sent.inputs.append(tensor._get_tensor())
        sent.raw_input_contents.append(tensor._get_content())
    check(grpc.read_request(messages.ModelInferRequest.FromString(sent.SerializeToString())))
    votes = Tensor("voters", np.ones((1, 2), np.float32))
    answer = grpc.write_response("seven", "m", "1", [Tensor("image", FILES), votes])
    read = triton_grpc.InferResult(service_pb2.ModelInferResponse.FromString(answer.SerializeToString()))
    assert read.as_numpy("image").tolist() == FILES.tolist()
    np.testing.assert_array_equal(read.as_numpy("voters"), votes.data)


def test_typed_contents_of_messages_are_read():
    entry = messages.ModelInferRequest.InferInputTensor
    request = grpc.read_request(
        messages.ModelInferRequest(
            inputs=[
                entry(name="image", datatype="BYTES", shape=[1], contents={"bytes_contents": [b"x"]}),
                entry(name="pixels", datatype="FP32", shape=[2], contents={"fp32_contents": [0, 0.5]}),
            ]
        )
    )
    assert request.inputs["image"].data.tolist() == [b"x"]
    assert request.inputs["pixels"].data.tolist() == [0, 0.5]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"inputs": {}}',
        b'{"inputs": [1]}',
        b'{"inputs": [{"name": 1}]}',
        b'{"inputs": [], "id": 1}',
        b'{"inputs": [], "outputs": 1}',
        b'{"inputs": [], "outputs": [{}]}',
        b'{"inputs": [], "parameters": []}',
        b'{"inputs": [], "parameters": {"binary_data_output": 1}}',
        b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [NaN]}]}',
        b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1], "data": [1' + b"0" * 5000 + b"]}]}",
        json.dumps({"inputs": [INPUT, INPUT]}).encode(),
        json.dumps({"inputs": [INPUT | {"parameters": {"binary_data_size": 5}}]}).encode(),
        json.dumps({"inputs": [INPUT | {"parameters": {"binary_data_size": -1}}]}).encode(),
        json.dumps({"inputs": [INPUT | {"parameters": {"shared_memory_region": "r"}}]}).encode(),
        json.dumps(
            {"inputs": [INPUT], "outputs": [{"name": "a", "parameters": {"classification": 3}}]}
        ).encode(),
    ],
)
def test_bodies_that_are_no_requests_are_refused(body):
    with pytest.raises(Refusal) as refused:
        rest.read_request(body, None, LIMIT)
    assert refused.value.status == 400 and refused.value.message


@pytest.mark.parametrize("length", ["-1", "99", "1e1", "", "x", "9" * 30, "٣"])
def test_header_lengths_that_do_not_fit_are_refused(length):
    with pytest.raises(Refusal, match="Inference-Header-Content-Length"):
        rest.read_request(json.dumps({"inputs": []}).encode(), length, LIMIT)


def test_a_long_json_part_is_refused_before_it_is_parsed():
    with pytest.raises(Refusal) as refused:
        rest.read_request(b"[" * 2000, None, 1000)
    assert refused.value.status == 413


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
TENSORS = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["image", "pixels", "label"]) | JSON,
        "datatype": st.sampled_from(["BYTES", "UINT8", "FP32", "INT64"]) | JSON,
        "shape": st.lists(st.integers(-1, 3), max_size=4) | JSON,
        "data": st.lists(st.sampled_from(["", "aGk=", 0, 0.5, 300, None]), max_size=4) | JSON,
        "parameters": st.dictionaries(st.just("binary_data_size"), st.integers(-2, 9), max_size=1) | JSON,
    },
)
REQUESTS = st.fixed_dictionaries(
    {"inputs": st.lists(TENSORS, max_size=3) | JSON},
    optional={"id": JSON, "outputs": st.lists(TENSORS, max_size=2) | JSON, "parameters": JSON},
)


@settings(max_examples=500, deadline=None)
@given(REQUESTS, st.binary(max_size=12), st.none() | st.integers(-1, 500))
@example({"inputs": [INPUT]}, b"", None)
def test_any_json_and_bytes_are_read_or_refused(fields, tail, length):
    body = json.dumps(fields).encode()
    header = None if length is None else str(len(body) if length == 500 else length)
    if header is None and tail:
        header = str(len(body))
    try:
        request, _ = rest.read_request(body + tail, header, LIMIT)
    except Refusal as refusal:
        assert 400 <= refusal.status < 500 and refusal.message
    else:
        assert all(isinstance(tensor, Tensor) for tensor in request.inputs.values())


@settings(max_examples=500, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["image", "pixels", "label", ""]),
            st.sampled_from(["BYTES", "UINT8", "FP32", "FP64", ""]),
            st.lists(st.integers(-2, 2**40) | st.integers(0, 3), max_size=4),
            st.none() | st.lists(st.binary(max_size=9), max_size=3),
            st.booleans(),
        ),
        max_size=3,
    ),
    st.lists(st.binary(max_size=16), max_size=3),
)
def test_any_message_is_read_or_refused(tensors, raw):
    message = messages.ModelInferRequest(raw_input_contents=raw)
    for name, datatype, shape, values, shared in tensors:
        entry = message.inputs.add(name=name, datatype=datatype, shape=shape)
        if values is not None:
            entry.contents.bytes_contents.extend(values)
            entry.contents.uint_contents.extend(len(value) * 60 for value in values)
        if shared:
            entry.parameters["shared_memory_region"].string_param = "r"
    try:
        request = grpc.read_request(message)
    except Refusal as refusal:
        assert 400 <= refusal.status < 500 and refusal.message
    else:
        assert all(isinstance(tensor, Tensor) for tensor in request.inputs.values())
