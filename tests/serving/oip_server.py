"""An Open Inference Protocol server of its own: a linear ONNX classifier over REST and gRPC, in a process.

Written against the protocol's text and Triton's binary extension, with the standard library and onnxruntime:
it shares no line with synfer_ray. It prints its two ports, counts requests and fails on demand.
"""

import argparse
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import grpc
import numpy as np
import onnxruntime
from PIL import Image
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests.calibration.tiny_onnx import linear_model

SIDE, CLASSES = 8, 7
WEIGHTS = np.random.default_rng(5).normal(0, 0.5, (3 * SIDE * SIDE, CLASSES)).astype(np.float32)
INPUTS = {
    "chw": ("FP32", [-1, 3, SIDE, SIDE]),
    "hwc": ("UINT8", [-1, SIDE, SIDE, 3]),
    "files": ("BYTES", [-1]),
    "short": ("FP32", [-1, 3, SIDE, SIDE]),
}
"""What each model takes; `short` states 7 classes and answers with 6."""
DTYPES = {"FP32": np.float32, "UINT8": np.uint8}


class Failing(Exception):
    """(HTTP status, gRPC code, message)"""


class Models:
    def __init__(self, failures: int, token: str) -> None:
        self.session = onnxruntime.InferenceSession(linear_model(WEIGHTS, ["N", 3, SIDE, SIDE]))
        self.failures, self.token, self.calls = failures, token, 0

    def admit(self, authorization: str, model: str) -> None:
        if self.token and authorization != f"Bearer {self.token}":
            raise Failing(401, "UNAUTHENTICATED", "a bearer token is needed")
        if model not in INPUTS:
            raise Failing(404, "NOT_FOUND", f"no model {model!r}")

    def infer(self, model: str, name: str, shape: list[int], data: "bytes | list") -> np.ndarray:
        self.calls += 1
        if self.failures:
            self.failures -= 1
            raise Failing(503, "UNAVAILABLE", "busy")
        datatype, expected = INPUTS[model]
        if name != "images" or len(shape) != len(expected) or list(shape[1:]) != expected[1:]:
            raise Failing(400, "INVALID_ARGUMENT", f"{name} {shape} is not images {expected}")
        if datatype == "BYTES":
            pictures = [np.asarray(Image.open(io.BytesIO(file)).convert("RGB")) for file in _strings(data)]
            pixels = np.stack(pictures).transpose(0, 3, 1, 2) / np.float32(255)
        elif isinstance(data, list):
            pixels = np.array(data, DTYPES[datatype]).reshape(shape)
        else:
            pixels = np.frombuffer(data, DTYPES[datatype]).reshape(shape)
        if datatype == "UINT8":
            pixels = pixels.transpose(0, 3, 1, 2) / np.float32(255)
        scores = self.session.run(None, {"images": np.ascontiguousarray(pixels)})[0]
        return scores[:, :6] if model == "short" else scores


def metadata(model: str) -> dict:
    datatype, shape = INPUTS[model]
    return {
        "name": model,
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "images", "datatype": datatype, "shape": shape}],
        "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, CLASSES]}],
    }


def rest(models: Models, extensions: list[str]) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # an answer leaves in one piece

        def do_GET(self) -> None:
            if self.path == "/v2":
                return self.answer(200, {"name": "tiny", "version": "0", "extensions": extensions})
            self.attempt(lambda model: self.answer(200, metadata(model)))

        def do_POST(self) -> None:
            self.attempt(self.infer)

        def attempt(self, work) -> None:
            try:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                self.json_size = int(self.headers.get("Inference-Header-Content-Length", len(body)))
                self.request_body = body
                model = self.path.split("/")[3]
                models.admit(self.headers.get("Authorization", ""), model)
                work(model)
            except Failing as failing:
                self.answer(failing.args[0], {"error": failing.args[2]})

        def infer(self, model: str) -> None:
            request = json.loads(self.request_body[: self.json_size])
            tensor, binary = request["inputs"][0], self.request_body[self.json_size :]
            scores = models.infer(model, tensor["name"], tensor["shape"], tensor.get("data") or binary)
            output = {"name": "scores", "datatype": "FP32", "shape": list(scores.shape)}
            if not request["outputs"][0]["parameters"]["binary_data"]:
                return self.answer(200, {"outputs": [output | {"data": scores.ravel().tolist()}]})
            output["parameters"] = {"binary_data_size": scores.nbytes}
            self.answer(200, {"outputs": [output]}, scores.tobytes())

        def answer(self, status: int, document: dict, binary: bytes = b"") -> None:
            head = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(head) + len(binary)))
            self.send_header("Inference-Header-Content-Length", str(len(head)))
            if status == 503:
                self.send_header("Retry-After", "1")
            self.end_headers()
            self.wfile.write(head + binary)

        def log_message(self, *arguments) -> None:
            pass

    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


class Servicer(service_pb2_grpc.GRPCInferenceServiceServicer):
    def __init__(self, models: Models) -> None:
        self.models = models

    def ModelMetadata(self, request, context):
        self.admit(request.name, context)
        stated = metadata(request.name)
        tensor = service_pb2.ModelMetadataResponse.TensorMetadata
        sides = {side: [tensor(**entry) for entry in stated.pop(side)] for side in ("inputs", "outputs")}
        return service_pb2.ModelMetadataResponse(**stated, **sides)

    def ModelInfer(self, request, context):
        self.admit(request.model_name, context)
        tensor = request.inputs[0]
        try:
            content = request.raw_input_contents[0]
            scores = self.models.infer(request.model_name, tensor.name, list(tensor.shape), content)
        except Failing as failing:
            self.abort(failing, context)
        output = service_pb2.ModelInferResponse.InferOutputTensor(
            name="scores", datatype="FP32", shape=scores.shape
        )
        return service_pb2.ModelInferResponse(outputs=[output], raw_output_contents=[scores.tobytes()])

    def admit(self, model: str, context) -> None:
        try:
            self.models.admit(dict(context.invocation_metadata()).get("authorization", ""), model)
        except Failing as failing:
            self.abort(failing, context)

    def abort(self, failing: Failing, context) -> None:
        context.set_trailing_metadata((("retry-after", "1"),) if failing.args[0] == 503 else ())
        context.abort(grpc.StatusCode[failing.args[1]], failing.args[2])


def _strings(data: bytes) -> list[bytes]:
    """Splits BYTES: each string after its length in four bytes, little-endian."""
    strings = []
    while data:
        size = int.from_bytes(data[:4], "little")
        strings.append(data[4 : 4 + size])
        data = data[4 + size :]
    return strings


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--failures", type=int, default=0, help="answer 503 so many times first")
    parser.add_argument("--token", default="")
    parser.add_argument("--json-only", action="store_true", help="state no binary extension")
    arguments = parser.parse_args()
    models = Models(arguments.failures, arguments.token)
    http = rest(models, [] if arguments.json_only else ["binary_tensor_data"])
    server = grpc.server(ThreadPoolExecutor(4))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Servicer(models), server)
    print(http.server_address[1], server.add_insecure_port("127.0.0.1:0"), flush=True)
    server.start()
    http.serve_forever()


@dataclass(frozen=True)
class OipServer:
    """A running server: its process and URLs."""

    process: subprocess.Popen
    http: str
    grpc: str


@contextmanager
def running(*arguments: str) -> Iterator[OipServer]:
    """Starts the server in a process of its own."""
    command = [sys.executable, "-m", "tests.serving.oip_server", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        http, grpc_port = process.stdout.readline().split()
        yield OipServer(process, f"http://127.0.0.1:{http}", f"grpc://127.0.0.1:{grpc_port}")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


if __name__ == "__main__":
    main()
