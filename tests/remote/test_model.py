"""What is tried again, and when."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest

from synfer_ray.errors import InputError
from synfer_ray.remote import model as remote
from synfer_ray.remote.model import RemoteModel, RequestRefused, Tensor
from synfer_ray.remote.transports import Failure
from tests.serving.oip_server import SIDE, running

PIXELS = {"images": ("FP32", np.zeros((2, 3, SIDE, SIDE), np.float32))}
SCHEMES = ("http", "grpc")


@pytest.fixture
def pauses(monkeypatch):
    """The seconds slept, without sleeping."""
    slept: list[float] = []
    monkeypatch.setattr(remote, "time", SimpleNamespace(sleep=slept.append))
    return slept


class Answers:
    """A transport that raises or returns what it is told, in turn."""

    def __init__(self, *answers):
        self.answers = list(answers)

    def infer(self, *request):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def model_with(*answers, retries: int = 4) -> RemoteModel:
    model = RemoteModel("http://127.0.0.1:9", "faces", retries=retries)
    transport = Answers(*answers)
    model._connect = lambda: transport
    model._thread.transport = transport
    return model


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_pause_is_the_one_the_server_asks_for(scheme, pauses):
    with running("--failures", "2") as server:
        answer = RemoteModel(getattr(server, scheme), "chw").infer(PIXELS, ["scores"])
    assert answer["scores"].shape == (2, 7)
    assert pauses == [1.0, 1.0]


def test_pauses_double_and_stay_bounded(pauses):
    refusals = [Failure("busy", "503")] * 12
    with pytest.raises(ConnectionError, match="tried 12 times: busy"):
        model_with(*refusals, retries=11).infer({}, ["x"])
    assert len(pauses) == 11
    for attempt, pause in enumerate(pauses):
        longest = min(remote.FIRST_PAUSE * 2**attempt, remote.LONGEST_PAUSE)
        assert longest / 2 <= pause <= longest


@pytest.mark.parametrize(
    "status", ["408", "429", "500", "502", "503", "504", "UNAVAILABLE", "RESOURCE_EXHAUSTED", ""]
)
def test_what_may_pass_is_tried_again(status, pauses):
    answer = {"x": np.zeros(1)}
    assert model_with(Failure("later", status), answer).infer({}, ["x"]) == answer


@pytest.mark.parametrize(
    "status", ["400", "401", "404", "413", "501", "INVALID_ARGUMENT", "NOT_FOUND", "invalid"]
)
def test_what_will_not_pass_is_not(status, pauses):
    with pytest.raises(RequestRefused, match="wrong") as refusal:
        model_with(Failure("wrong", status), {"x": np.zeros(1)}).infer({}, ["x"])
    assert refusal.value.status == status and pauses == []
    assert isinstance(refusal.value, InputError)


def test_an_answer_without_the_output_is_told():
    with pytest.raises(RequestRefused, match="lacks x"):
        model_with({"x": None}).infer({}, ["x"])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_any_thread_may_ask(scheme):
    from concurrent.futures import ThreadPoolExecutor

    with running() as server, ThreadPoolExecutor(4) as threads:
        model = RemoteModel(getattr(server, scheme), "chw")
        answers = list(threads.map(lambda _: model.infer(PIXELS, ["scores"])["scores"], range(12)))
    assert all(np.array_equal(answer, answers[0]) for answer in answers)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_metadata_is_the_same_over_both(scheme):
    with running() as server:
        metadata = RemoteModel(getattr(server, scheme), "hwc").metadata()
    assert metadata.inputs == {"images": Tensor("UINT8", (-1, SIDE, SIDE, 3))}
    assert metadata.outputs == {"scores": Tensor("FP32", (-1, 7))}


def test_shapes_fit_where_sizes_agree_or_are_free():
    tensor = Tensor("FP32", (-1, 3, 8))
    assert tensor.fits((-1, 3, 8)) and tensor.fits((5, 3, 8)) and tensor.fits((-1, -1, 8))
    assert not tensor.fits((-1, 1, 8)) and not tensor.fits((3, 8))
    assert str(tensor) == "FP32 [-1, 3, 8]"


class Babbler(BaseHTTPRequestHandler):
    """Answers every inference with the bytes of `answer`, of which `json_size` are said to be JSON."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    answer = b""
    json_size = ""

    def do_GET(self) -> None:
        self.reply(b'{"extensions": ["binary_tensor_data"]}')

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.reply(self.answer)

    def reply(self, body: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        if self.json_size:
            self.send_header("Inference-Header-Content-Length", self.json_size)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments) -> None:
        pass


def one_output(**changes) -> bytes:
    tensor = {"name": "x", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}}
    return json.dumps({"outputs": [tensor | changes]}).encode()


@pytest.mark.parametrize(
    ("answer", "json_size"),
    [
        (b"", ""),
        (b"no json", ""),
        (b"[]", ""),
        (b"{}", ""),
        (b'{"outputs": [{"name": "x"}]}', ""),
        (one_output(shape=[3], data=[1], parameters={}), ""),
        (one_output(), str(len(one_output()))),  # its binary part is missing
        (one_output(), "999"),
        (one_output(), "x"),
        (one_output(datatype="BYTES") + b"\xff\xff\xff\xffabcd", str(len(one_output(datatype="BYTES")))),
    ],
)
def test_an_answer_that_breaks_the_protocol_is_told(answer, json_size):
    handler = type("Handler", (Babbler,), {"answer": answer, "json_size": json_size})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    model = RemoteModel(f"http://127.0.0.1:{server.server_address[1]}", "faces", retries=0)
    with pytest.raises(RequestRefused):
        model.infer({"x": ("FP32", np.zeros(1, np.float32))}, ["x"])
    server.shutdown()
