"""Ten thousand malformed requests to the running service: each is refused, nothing dies, nothing piles up."""

import base64
import json
import random
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import grpc
import psutil
import pytest
import requests

from synfer_ray.serving.oip import inference_pb2 as messages
from synfer_ray.serving.oip.tensors import Tensor, bytes_array, to_raw
from tests.fake_dataset import face, png

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
COUNT, THREADS = 10_000, 8
FACE = png(face(1, 40))
TENSOR = {"name": "image", "datatype": "BYTES", "shape": [1], "data": [base64.b64encode(FACE).decode()]}
VALUES = [
    None,
    True,
    -1,
    0,
    2**40,
    1e308,
    "",
    "x",
    [],
    {},
    [[]],
    [-1],
    [1, 1],
    [2**31],
    "FP64",
    "pixels",
    "label",
]


def broken_json(chance):
    """A valid request of which one field, or some bytes, have become something else."""
    request = {"inputs": [dict(TENSOR)], "outputs": [{"name": "label"}], "parameters": {}, "id": "7"}
    place = chance.choice([request, request["inputs"][0], request["outputs"][0]])
    place[chance.choice([*place, "parameters"])] = chance.choice(VALUES)
    return (
        garbled(json.dumps(request).encode(), chance)
        if chance.random() < 0.5
        else json.dumps(request).encode()
    )


def garbled(data, chance):
    data = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    return bytes(data[: chance.randrange(len(data))] if chance.random() < 0.3 else data)


def broken_message(chance):
    request = messages.ModelInferRequest(model_name="calibrator")
    request.inputs.add(name="image", datatype="BYTES", shape=[1])
    request.raw_input_contents.append(to_raw(Tensor("image", bytes_array([FACE]))))
    kind = chance.randrange(6)
    if kind == 0:
        request.inputs[0].datatype = chance.choice(["", "INT64", "UINT8", "FP32"])
    elif kind == 1:
        request.inputs[0].shape[:] = [chance.choice([-1, 0, 2, 2**62]) for _ in range(chance.randint(0, 9))]
    elif kind == 2:
        request.inputs[0].name = chance.choice(["", "pixels", "label", "images"])
    elif kind == 3:
        request.model_name = chance.choice(["", "other"])
    elif kind == 4:
        request.raw_input_contents[0] = garbled(request.raw_input_contents[0], chance)
    data = request.SerializeToString()
    return garbled(data, chance) if kind == 5 else data


def ours():
    """The proxy's and the replicas' processes, by id, with their memory."""
    children = psutil.Process().children(recursive=True)
    names = ("ray::ServeReplica", "ray::ProxyActor")
    return {child.pid: child.memory_info().rss for child in children if child.name().startswith(names)}


def flood(ask):
    """Sends the requests from some threads; returns how often each outcome came."""
    with ThreadPoolExecutor(THREADS) as pool:
        runs = [pool.submit(ask, seed, COUNT // 2 // THREADS) for seed in range(THREADS)]
        return sum((run.result() for run in runs), Counter())


def test_ten_thousand_malformed_requests_are_refused(server):
    def over_http(seed, count):
        chance, session, seen = random.Random(seed), requests.Session(), Counter()
        for _ in range(count):
            path = chance.choice(
                ["/v2/models/calibrator/infer", "/v1/calibrate", "/v2/models/calibrator/infer"]
            )
            body = broken_json(chance) if "infer" in path else garbled(FACE, chance)
            headers = {}
            if chance.random() < 0.3:
                headers["Inference-Header-Content-Length"] = str(
                    chance.choice([-1, 0, 5, len(body), 10**9, "x"])
                )
            if chance.random() < 0.1:
                headers["Content-Type"] = "multipart/form-data; boundary=x"
            response = session.post(f"http://{server.http}{path}", data=body, headers=headers, timeout=60)
            seen[response.status_code] += 1
            assert response.status_code == 200 or response.json()["error"]
        return seen

    def over_grpc(seed, count):
        chance, seen = random.Random(seed), Counter()
        with grpc.insecure_channel(server.grpc) as channel:
            call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            for _ in range(count):
                try:
                    call(broken_message(chance), timeout=60)
                    seen["OK"] += 1
                except grpc.RpcError as error:
                    seen[error.code().name] += 1
        return seen

    before = ours()
    seen = flood(over_http) + flood(over_grpc)
    after = ours()
    growth = sum(after.values()) - sum(before.values())
    print(dict(seen), f"memory {growth / 1e6:+.0f} MB")
    assert seen.total() == COUNT
    assert set(seen) <= {200, 400, 404, 413, "OK", "INVALID_ARGUMENT", "NOT_FOUND"}
    assert seen[200] + seen["OK"] < 0.2 * COUNT  # some bytes of an image may change and leave it an image
    assert set(after) == set(before)  # nobody died
    assert growth < 150_000_000
