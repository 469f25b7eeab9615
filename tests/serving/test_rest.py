"""The REST entrance in this process, without Ray: a real bundle, a real application."""

import asyncio
import base64
import io
import json
import re
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from starlette.testclient import TestClient

from synfer_ray.serving.device_queue import DeviceQueue
from synfer_ray.serving.rest import rest_app
from synfer_ray.taxonomy.expressions import EXPRESSIONS
from tests.fake_dataset import face, png

FACE = png(face(1, 40))
INFER = "/v2/models/calibrator/infer"


@pytest.fixture(scope="module")
def client(service):
    with TestClient(rest_app(service)) as client:
        yield client


def json_input(**fields):
    data = [base64.b64encode(FACE).decode()]
    return {"name": "image", "datatype": "BYTES", "shape": [1], "data": data} | fields


def outputs_of(response):
    assert response.status_code == 200, response.text
    return {output["name"]: output for output in response.json()["outputs"]}


def error_of(response):
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == {"error"} and response.json()["error"]
    return response.json()["error"]


def test_one_image_as_the_body(client):
    result = client.post("/v1/calibrate?label=Happiness", content=FACE).json()["results"][0]
    assert set(result) == {"name", "label", "probabilities", "voters", "agreement", "decision", "reason"}
    assert list(result["probabilities"]) == list(EXPRESSIONS)
    assert sum(result["probabilities"].values()) == pytest.approx(1, abs=1e-5)
    assert set(result["voters"]) == {"feranno", "residual", "separable"}
    means = np.mean([list(votes.values()) for votes in result["voters"].values()], axis=0)
    np.testing.assert_allclose(list(result["probabilities"].values()), means, atol=1e-6)
    assert result["label"] == max(result["probabilities"], key=result["probabilities"].get)


def test_several_files_with_a_label_each_and_attention(client):
    files = [("file", (f"{number}.png", png(face(number, 40)))) for number in range(3)]
    response = client.post(
        "/v1/calibrate?attention=true", files=files, data={"label": ["happy", "", "angry"]}
    )
    results = response.json()["results"]
    assert [result["name"] for result in results] == ["0.png", "1.png", "2.png"]
    for result in results:
        overlay = Image.open(io.BytesIO(base64.b64decode(result["attention"])))
        assert overlay.format == "PNG" and overlay.size == (192, 192)
    alone = client.post("/v1/calibrate?label=anger", content=files[2][1][1]).json()["results"][0]
    assert {**results[2], "name": "image", "attention": 0} == {**alone, "attention": 0}


def test_one_picture_has_one_answer_in_every_form(client):
    pixels = np.asarray(Image.open(io.BytesIO(FACE)))[None]
    forms = [
        json_input(),
        {"name": "pixels", "datatype": "UINT8", "shape": list(pixels.shape), "data": pixels.tolist()},
        {"name": "pixels", "datatype": "FP32", "shape": list(pixels.shape), "data": (pixels / 255).tolist()},
    ]
    answers = [outputs_of(client.post(INFER, json={"inputs": [form]})) for form in forms]
    assert answers[0] == answers[1] == answers[2]
    assert answers[0]["voters"]["shape"] == [1, 3, 7] and answers[0]["probabilities"]["shape"] == [1, 7]
    people = client.post("/v1/calibrate", content=FACE).json()["results"][0]
    assert answers[0]["probabilities"]["data"] == list(people["probabilities"].values())
    assert answers[0]["label"]["data"] == [people["label"]]


def test_only_the_named_outputs_come_in_their_order(client):
    body = {"inputs": [json_input()], "outputs": [{"name": "attention"}, {"name": "label"}], "id": "7"}
    answer = client.post("/v2/models/calibrator/versions/1/infer", json=body)
    assert list(outputs_of(answer)) == ["attention", "label"] and answer.json()["id"] == "7"
    assert base64.b64decode(outputs_of(answer)["attention"]["data"][0]).startswith(b"\x89PNG")
    assert "attention" not in outputs_of(client.post(INFER, json={"inputs": [json_input()]}))


def test_the_server_describes_itself(client):
    assert client.get("/v2").json()["extensions"] == ["binary_tensor_data", "model_configuration"]
    model = client.get("/v2/models/calibrator").json()
    assert client.get("/v2/models/calibrator/versions/1").json() == model
    assert model["parameters"]["expressions"].split(",") == list(EXPRESSIONS)
    assert model["parameters"]["voters"] == "feranno,residual,separable"
    assert model["parameters"]["fingerprint_model"] == "0123"
    config = client.get("/v2/models/calibrator/config").json()
    assert [entry["name"] for entry in config["input"]] == [entry["name"] for entry in model["inputs"]]
    for path in ("/v2/health/live", "/v2/health/ready", "/v2/models/calibrator/ready"):
        assert client.get(path).status_code == 200
    described = client.get("/openapi.json").json()["paths"]
    assert {"/v1/calibrate", "/v2/models/{model}/infer"} <= set(described)
    assert "multipart/form-data" in described["/v1/calibrate"]["post"]["requestBody"]["content"]
    assert client.get("/docs").status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v2/models/calibrater", 404),
        ("GET", "/v2/models/calibrator/versions/2/ready", 404),
        ("GET", "/v2/models/calibrator/stats", 404),
        ("POST", "/v2/models/other/infer", 404),
        ("GET", "/v1/calibrate", 405),
        ("GET", "/nowhere", 404),
        ("GET", "/v2/models/%ed%a0%80", 404),
    ],
)
def test_what_is_not_there_is_said_in_the_error_body(client, method, path, status):
    response = client.request(method, path)
    assert response.status_code == status and error_of(response)


def bomb(width, height):
    """A PNG file of a few bytes whose header promises many pixels."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(width * 3 + 1) * min(height, 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty_file"),
        (b"GIF89a" + bytes(50), "unknown_format"),
        (FACE[: len(FACE) // 2], "damaged"),
        (bomb(30_000, 30_000), "too_many_pixels"),
        (bomb(501, 500), "too_many_pixels"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unknown_format"),
    ],
)
def test_images_that_cannot_be_used_are_named(client, data, message):
    assert message in error_of(client.post("/v1/calibrate", content=data))
    tensor = json_input(data=[base64.b64encode(data).decode()])
    response = client.post(INFER, json={"inputs": [tensor]})
    assert response.status_code == 400 and "image 0" in error_of(response)


PIXELS = {"name": "pixels", "datatype": "FP32", "shape": [1, 1, 1, 3], "data": [0, 0, 0]}


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "one of the inputs"),
        ([json_input(), PIXELS], "and not both"),
        ([json_input(name="imag")], "did you mean 'image'"),
        ([json_input(shape=[1, 1])], r"\[N\]"),
        ([json_input(shape=[])], "1 to 16 faces"),
        ([json_input(datatype="UINT8", data=[1])], "BYTES"),
        ([json_input(shape=[17], data=[""] * 17)], "1 to 16 faces"),
        ([PIXELS | {"data": [0, 0, 1.5]}], "0..1"),
        ([PIXELS | {"data": [0, 0, -0.1]}], "0..1"),
        ([PIXELS | {"data": [0, 0, 1e300]}], "0..1"),
        ([PIXELS | {"shape": [1, 3, 1, 1]}], r"\[N, H, W, 3\]"),
        ([PIXELS | {"shape": [1, 501, 500, 3], "datatype": "UINT8", "data": []}], "has 751500 elements"),
        ([json_input(), {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["", ""]}], r"\[1\]"),
        (
            [json_input(), {"name": "label", "datatype": "BYTES", "shape": [1], "data": ["contempt"]}],
            "contempt",
        ),
    ],
)
def test_inputs_that_the_model_does_not_take_are_refused(client, inputs, message):
    response = client.post(INFER, json={"inputs": inputs})
    assert response.status_code == 400 and re.search(message, error_of(response))


def test_nan_pixels_are_refused(client):
    raw = np.array([0, np.nan, 1], "<f4").tobytes()
    entry = {k: v for k, v in PIXELS.items() if k != "data"} | {"parameters": {"binary_data_size": 12}}
    text = json.dumps({"inputs": [entry]}).encode()
    response = client.post(
        INFER, content=text + raw, headers={"Inference-Header-Content-Length": str(len(text))}
    )
    assert response.status_code == 400 and "0..1" in error_of(response)


def test_unknown_outputs_and_labels_are_refused(client):
    response = client.post(INFER, json={"inputs": [json_input()], "outputs": [{"name": "labels"}]})
    assert response.status_code == 400 and "did you mean 'label'" in error_of(response)
    assert "'happpy'" in error_of(client.post("/v1/calibrate?label=happpy", content=FACE))
    assert "attention" in error_of(client.post("/v1/calibrate?attention=perhaps", content=FACE))


def test_bodies_are_read_up_to_the_limit(client, serve_config):
    too_long = b"x" * (serve_config.limits.max_body_bytes + 1)
    response = client.post("/v1/calibrate", content=too_long)
    assert response.status_code == 413 and error_of(response)
    read = []

    def chunks():
        for _ in range(1000):
            read.append(1)
            yield bytes(100_000)

    response = client.post("/v1/calibrate", content=chunks())
    assert response.status_code == 413 and error_of(response)
    response = client.post(INFER, content=FACE, headers={"Content-Encoding": "gzip"})
    assert response.status_code == 415 and error_of(response)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"nothing", "multipart/form-data"),
        (b"nothing", "multipart/form-data; boundary=x"),
        (b"--x\r\n\r\nno header\r\n--x--", "multipart/form-data; boundary=x"),
        (b"--x\r\nContent-Disposition: form-data\r\n\r\nno name\r\n--x--", "multipart/form-data; boundary=x"),
        (
            b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\nb\r\n--x--',
            "multipart/form-data; boundary=x",
        ),
    ],
)
def test_broken_forms_are_refused(client, content, kind):
    response = client.post("/v1/calibrate", content=content, headers={"Content-Type": kind})
    assert response.status_code == 400 and error_of(response)


def test_too_many_files_are_refused(client):
    files = [("file", (f"{number}.png", FACE)) for number in range(17)]
    response = client.post("/v1/calibrate", files=files)
    assert response.status_code == 400 and error_of(response)
    response = client.post("/v1/calibrate", files=files[:2], data={"label": ["happy"] * 3})
    assert "3 labels came for 2 files" in error_of(response)


def test_models_that_fail_are_a_service_that_is_unavailable(client, service, monkeypatch):
    def broken(faces):
        raise RuntimeError("out of memory: secret path")

    monkeypatch.setattr(service.queue, "ask", broken)
    response = client.post("/v1/calibrate", content=FACE)
    assert response.status_code == 503 and response.headers["Retry-After"] == "1"
    assert "secret" not in error_of(response)


def test_a_replica_whose_answers_change_is_not_healthy(service, monkeypatch):
    def check():
        queue = DeviceQueue(service._ask, service.ensemble.batch_size, 0.0)  # of this event loop
        monkeypatch.setattr(service, "queue", queue)
        asyncio.run(service.check())

    check()
    votes = np.ones((service.ensemble.batch_size, 7), np.float32)
    monkeypatch.setattr(service.ensemble.voters[1].way.expert, "predict", lambda pixels: votes)
    with pytest.raises(RuntimeError, match="as they did at the start"):
        check()


def test_the_token_guards_all_but_what_says_nothing(service, monkeypatch):
    monkeypatch.setattr(service.access, "expected", b"Bearer s3cret")
    with TestClient(rest_app(service)) as client:
        for path in ("/v2/health/live", "/v2/health/ready", "/docs", "/openapi.json"):
            assert client.get(path).status_code == 200
        for path in ("/v2", "/v2/models/calibrator", "/nowhere"):
            response = client.get(path)
            assert response.status_code == 401 and error_of(response)
            assert response.headers["WWW-Authenticate"] == "Bearer"
        assert client.post("/v1/calibrate", content=FACE).status_code == 401
        allowed = {"Authorization": "Bearer s3cret"}
        assert client.get("/v2", headers=allowed).status_code == 200


PATHS = st.sampled_from(
    ["/v1/calibrate", INFER, "/v2/models/calibrator/versions/1/infer", "/v2", "/", "/v2/x"]
)
HEADERS = st.dictionaries(
    st.sampled_from(["Content-Type", "Inference-Header-Content-Length", "Content-Encoding", "Authorization"]),
    st.sampled_from(
        [
            "application/json",
            "multipart/form-data; boundary=x",
            "multipart/form-data",
            "0",
            "5",
            "-1",
            "gzip",
            "é",
        ]
    ),
    max_size=3,
)
BODIES = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([FACE[:50], b'{"inputs": []}', b"--x\r\n", b'{"inputs": [{}]}']),
    st.integers(0, len(FACE) - 1).map(lambda cut: FACE[:cut] + b"\0" + FACE[cut + 1 :]),
)


@settings(max_examples=500, deadline=None)
@given(st.sampled_from(["GET", "POST", "PUT", "HEAD"]), PATHS, HEADERS, BODIES, st.text(max_size=8))
def test_whatever_comes_is_answered_or_refused(client, method, path, headers, body, label):
    headers = {key: value.encode() for key, value in headers.items()}
    response = client.request(method, path, params={"label": label}, headers=headers, content=body)
    assert response.status_code < 500, response.text
    if response.status_code >= 400 and method != "HEAD":
        assert error_of(response)
