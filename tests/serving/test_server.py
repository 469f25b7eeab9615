"""The service as it runs: Ray Serve's own proxies, a replica, and the unmodified clients of Triton."""

import asyncio
import io
import socket
import subprocess
import sys

import grpc
import numpy as np
import psutil
import pytest
import requests
import tritonclient.grpc as triton_grpc
import tritonclient.grpc.aio as triton_grpc_aio
import tritonclient.http as triton_http
import tritonclient.http.aio as triton_http_aio
from PIL import Image
from tritonclient.utils import InferenceServerException

from synfer_ray.serving import contract
from synfer_ray.serving.faces import face_of_file
from synfer_ray.serving.oip.tensors import bytes_array
from synfer_ray.storage.bundle import find_bundle, model_fingerprints
from synfer_ray.taxonomy.expressions import EXPRESSIONS
from tests.fake_dataset import face, png

FILES = [png(face(index, 40)) for index in range(10)]
MODULES = {"http": triton_http, "grpc": triton_grpc}
AIO_MODULES = {"http": triton_http_aio, "grpc": triton_grpc_aio}
NAMES = ("label", "probabilities", "voters", "agreement", "decision", "reason")


@pytest.fixture(params=["http", "grpc"])
def protocol(request):
    return request.param


@pytest.fixture
def client(server, protocol):
    with MODULES[protocol].InferenceServerClient(getattr(server, protocol)) as client:
        yield client


@pytest.fixture(scope="module")
def direct(service):
    """What the same models say when they are called in this process, one face at a time."""
    size, max_pixels = service.ensemble.image_size, service.config.limits.max_pixels
    return [service.ensemble([face_of_file(data, "", "", size, max_pixels)])[0] for data in FILES]


def image_input(module, files):
    tensor = module.InferInput("image", [len(files)], "BYTES")
    tensor.set_data_from_numpy(bytes_array(files))
    return tensor


def same_as_direct(answer, direct):
    np.testing.assert_array_equal(answer.as_numpy("probabilities"), [v.probabilities for v in direct])
    np.testing.assert_array_equal(answer.as_numpy("voters"), [v.votes for v in direct])
    np.testing.assert_array_equal(answer.as_numpy("agreement"), np.float32([v.agreement for v in direct]))
    for name in ("label", "decision", "reason"):
        assert [text.decode() for text in answer.as_numpy(name)] == [getattr(v, name) for v in direct]


def test_live_ready_and_described(client, server, protocol):
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("calibrator") and client.is_model_ready("calibrator", "1")
    as_json = {} if protocol == "http" else {"as_json": True}
    assert client.get_server_metadata(**as_json)["name"] == "synfer-ray"
    metadata = client.get_model_metadata("calibrator", **as_json)
    assert [entry["name"] for entry in metadata["inputs"]] == ["image", "pixels", "label"]
    voters = metadata["outputs"][2]
    assert (voters["name"], voters["datatype"], list(map(int, voters["shape"]))) == (
        "voters",
        "FP32",
        [-1, 3, 7],
    )
    config = client.get_model_config("calibrator", **as_json)
    config = config if protocol == "http" else config["config"]
    assert config["input"][0]["data_type"] == "TYPE_STRING"
    models = model_fingerprints(find_bundle(server.config.bundle), server.config.voters, {})
    told = {key: value["string_value"] for key, value in config["parameters"].items()}
    assert told == contract.parameters(server.config, models)


def test_answers_are_those_of_the_models_called_directly(client, protocol, direct):
    inputs = [image_input(MODULES[protocol], FILES)]
    answer = client.infer("calibrator", inputs, request_id="seven")
    same_as_direct(answer, direct)
    response = answer.get_response()
    assert (response["id"] if protocol == "http" else response.id) == "seven"


def test_every_form_of_a_picture_and_a_label(client, protocol):
    module = MODULES[protocol]
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(data))) for data in FILES[:2]])
    label = module.InferInput("label", [2], "BYTES")
    label.set_data_from_numpy(bytes_array([b"happy", b""]))
    answers = []
    for name, values in (("image", None), ("pixels", pixels), ("pixels", (pixels / 255).astype(np.float32))):
        if values is None:
            tensor = image_input(module, FILES[:2])
        else:
            tensor = module.InferInput(name, list(values.shape), "UINT8" if values.itemsize == 1 else "FP32")
            tensor.set_data_from_numpy(values)
        answers.append(client.infer("calibrator", [tensor, label], model_version="1"))
    for name in NAMES:
        for other in answers[1:]:
            np.testing.assert_array_equal(other.as_numpy(name), answers[0].as_numpy(name))
    assert answers[0].as_numpy("label")[0] == b"happy" or answers[0].as_numpy("decision")[0] != b"agree"


def test_attention_is_a_picture(client, protocol):
    module = MODULES[protocol]
    outputs = [module.InferRequestedOutput("attention")]
    answer = client.infer("calibrator", [image_input(module, FILES[:2])], outputs=outputs)
    assert answer.as_numpy("probabilities") is None
    for data in answer.as_numpy("attention"):
        assert Image.open(io.BytesIO(data)).size == (192, 192)


def test_async_clients_share_batches_and_get_their_own_answers(server, protocol, direct):
    module = AIO_MODULES[protocol]

    async def ask():
        async with module.InferenceServerClient(getattr(server, protocol)) as client:
            assert await client.is_server_ready()
            return await asyncio.gather(
                *(client.infer("calibrator", [image_input(module, [data])]) for data in FILES)
            )

    for answer, expected in zip(asyncio.run(ask()), direct):
        same_as_direct(answer, [expected])


def refusal(call):
    with pytest.raises(InferenceServerException) as refused:
        call()
    return refused.value


def test_refusals_carry_the_codes_and_words_of_their_protocol(client, server, protocol):
    module = MODULES[protocol]
    not_found, invalid = {
        "http": ("404", "400"),
        "grpc": ("StatusCode.NOT_FOUND", "StatusCode.INVALID_ARGUMENT"),
    }[protocol]
    error = refusal(lambda: client.get_model_metadata("calibrater"))
    assert error.status() == not_found and "did you mean 'calibrator'" in error.message()
    error = refusal(lambda: client.infer("calibrator", [image_input(module, FILES)], model_version="9"))
    assert error.status() == not_found
    for files, message in (([b"no image"], "image 0: unknown_format"), ([FILES[0]] * 17, "1 to 16 faces")):
        error = refusal(lambda files=files: client.infer("calibrator", [image_input(module, files)]))
        assert error.status() == invalid and message in error.message()
    tensor = module.InferInput("pixels", [1, 1, 1, 3], "FP32")
    tensor.set_data_from_numpy(np.full((1, 1, 1, 3), np.nan, np.float32))
    assert refusal(lambda: client.infer("calibrator", [tensor])).status() == invalid
    outputs = [module.InferRequestedOutput("lable")]
    error = refusal(lambda: client.infer("calibrator", [image_input(module, FILES[:1])], outputs=outputs))
    assert error.status() == invalid and "did you mean 'label'" in error.message()


def test_messages_that_are_none_are_invalid_arguments(server):
    with grpc.insecure_channel(server.grpc) as channel:
        for method in ("ModelInfer", "ModelMetadata"):
            call = channel.unary_unary(f"/inference.GRPCInferenceService/{method}")
            for message in (b"\xff\xff\xff", b"\x2a\x7f", bytes(100), FILES[0]):
                with pytest.raises(grpc.RpcError) as refused:
                    call(message, timeout=30)
                assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        too_long = b"\x1a" + bytes(server.config.limits.max_body_bytes)
        with pytest.raises(grpc.RpcError) as refused:
            channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(too_long, timeout=30)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "more than" in refused.value.details()


def test_a_request_id_comes_back(server):
    response = requests.get(f"http://{server.http}/v2", headers={"X-Request-ID": "abc-1"}, timeout=30)
    assert response.headers["x-request-id"] == "abc-1"
    assert requests.get(f"http://{server.http}/v2", timeout=30).headers["x-request-id"]


def test_a_body_without_end_is_refused_and_not_kept(server):
    def chunks():
        for _ in range(3000):
            yield bytes(100_000)

    before = resident_bytes()
    response = requests.post(f"http://{server.http}/v1/calibrate", data=chunks(), timeout=60)
    assert response.status_code == 413 and response.json()["error"]
    assert resident_bytes() - before < 150_000_000  # of 300 MB that were sent


def resident_bytes():
    """The memory of Ray's processes that this one started."""
    children = psutil.Process().children(recursive=True)
    return sum(child.memory_info().rss for child in children if child.name().startswith("ray::"))


def test_http_listens_on_the_loopback_address_alone(server):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no other address")
        address = probe.getsockname()[0]
    with pytest.raises(requests.ConnectionError):
        requests.get(f"http://{address}:{server.config.port}/v2", timeout=5)
    with grpc.insecure_channel(f"{address}:{server.config.grpc_port}") as channel:
        with pytest.raises(grpc.RpcError) as refused:  # Ray's gRPC proxy listens everywhere; we do not answer
            channel.unary_unary("/inference.GRPCInferenceService/ServerLive")(b"", timeout=30)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


def test_the_page_and_curl(server):
    page = requests.get(f"http://{server.http}/", timeout=30)
    assert page.status_code == 200 and "default-src 'none'" in page.headers["Content-Security-Policy"]
    command = ["curl", "-s", "--data-binary", "@-", f"http://{server.http}/v1/calibrate?label=happy"]
    try:
        answer = subprocess.run(command, input=FILES[0], capture_output=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip("no curl here")
    assert b'"agreement"' in answer


def test_our_messages_and_tritons_live_in_one_process_in_any_order():
    for modules in (
        "tritonclient.grpc, synfer_ray.serving.oip.grpc",
        "synfer_ray.serving.oip.grpc, tritonclient.grpc",
    ):
        subprocess.run([sys.executable, "-c", f"import {modules}"], check=True)


def test_real_faces_are_judged(server, fer2013):
    import pyarrow.parquet as pq

    (path, *_) = sorted(fer2013.glob("*.parquet"))
    rows = next(pq.ParquetFile(path).iter_batches(16, columns=["image"])).to_pylist()
    files = [row["image"]["bytes"] for row in rows]
    with triton_http.InferenceServerClient(server.http) as client:
        answer = client.infer("calibrator", [image_input(triton_http, files)])
    assert {text.decode() for text in answer.as_numpy("label")} <= set(EXPRESSIONS)
    np.testing.assert_allclose(answer.as_numpy("probabilities").sum(axis=1), 1, atol=1e-5)
