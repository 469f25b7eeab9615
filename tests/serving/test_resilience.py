"""The service under load while replicas die, are replaced, or are far too few."""

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from itertools import pairwise

import grpc
import numpy as np
import psutil
import pytest
import requests

from synfer_ray.config import ReplicasConfig
from synfer_ray.serving.job import APPLICATION
from synfer_ray.serving.oip import inference_pb2 as messages
from synfer_ray.serving.oip.tensors import Tensor, bytes_array, to_raw
from tests.fake_dataset import face, png
from tests.tiny_bundle import save_tiny_bundle

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
FILES = [png(face(index, 40)) for index in range(6)]


@dataclass
class Reply:
    """What one request of the load came to; times are seconds on one clock."""

    file: int
    sent: float
    seconds: float
    status: int
    body: dict
    retry_after: str | None


@dataclass
class Load:
    """`clients` threads that each send one face after the other until told to stop."""

    url: str
    clients: int
    replies: list[Reply] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)

    def __enter__(self):
        self.threads = [threading.Thread(target=self._run, args=(k,)) for k in range(self.clients)]
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stop.set()
        for thread in self.threads:
            thread.join()

    def _run(self, number):
        session = requests.Session()
        while not self.stop.is_set():
            file = number % len(FILES)
            sent = time.monotonic()
            response = session.post(f"{self.url}/v1/calibrate", data=FILES[file], timeout=60)
            seconds = time.monotonic() - sent
            body = response.json() if response.status_code == 200 else {}
            retry_after = response.headers.get("Retry-After")
            self.replies.append(Reply(file, sent, seconds, response.status_code, body, retry_after))
            if response.status_code != 200:
                time.sleep(0.05)


def answers_of(bundle_config):
    """What the models of these settings say, called directly in this process."""
    from synfer_ray.serving.service import CalibratorService

    async def ask():
        service = CalibratorService(bundle_config, {})
        service.quickening.join()
        return await service.calibrate([("image", data) for data in FILES], [""] * len(FILES), False)

    return asyncio.run(ask())


def deploy(config):
    from ray import serve

    from synfer_ray.serving.app import calibrator_app

    serve.run(calibrator_app(config), name=APPLICATION)


def replicas():
    """The processes of the replicas of this Ray."""
    children = psutil.Process().children(recursive=True)
    return [child for child in children if child.name().startswith("ray::ServeReplica")]


@pytest.fixture
def deployed(server):
    """Deploys other settings; the common ones come back afterwards."""
    yield deploy
    deploy(server.config)


def test_a_killed_replica_costs_only_what_it_was_working_on(server, deployed):
    config = replace(server.config, replicas=ReplicasConfig(min_replicas=2, max_replicas=2, num_cpus=0.2))
    expected = answers_of(config)
    deployed(config)
    assert len(replicas()) == 2
    with Load(f"http://{server.http}", clients=8) as load:
        time.sleep(3)
        victim = replicas()[0]
        killed = time.monotonic()
        os.kill(victim.pid, signal.SIGKILL)
        time.sleep(15)
    failed = [reply for reply in load.replies if reply.status != 200]
    in_flight = [r for r in load.replies if r.sent <= killed <= r.sent + r.seconds]
    print(f"{len(load.replies)} requests, {len(in_flight)} in flight at the kill, {len(failed)} failed")
    assert len(failed) <= 8 and all(reply.sent <= killed + 1 for reply in failed)
    assert {reply.status for reply in failed} <= {500, 503}
    answered = sorted(reply.sent + reply.seconds for reply in load.replies if reply.status == 200)
    silence = max(later - earlier for earlier, later in pairwise(answered))
    print(f"longest silence {silence:.2f} s")
    assert silence < 10 and answered[-1] > killed + 10
    for reply in load.replies:
        if reply.status == 200:
            assert reply.body["results"] == [expected[reply.file]]


def test_a_new_bundle_replaces_the_old_one_and_no_request_is_lost(server, deployed, tmp_path):
    old = server.config
    new = replace(old, bundle=str(save_tiny_bundle(tmp_path / "new", seed=1)))
    expected = {"old": answers_of(old), "new": answers_of(new)}
    assert expected["old"] != expected["new"]
    with Load(f"http://{server.http}", clients=4) as load:
        time.sleep(1)
        deployed(new)
        time.sleep(2)
    assert Counter(reply.status for reply in load.replies) == {200: len(load.replies)}
    seen = []
    for reply in sorted(load.replies, key=lambda reply: reply.sent):
        (version,) = [
            name for name, known in expected.items() if reply.body["results"] == [known[reply.file]]
        ]
        seen.append(version)
    print(Counter(seen))
    assert seen[0] == "old" and seen[-1] == "new"


def test_ten_times_the_load_is_shed_and_forgotten(server, deployed):
    limits = ReplicasConfig(max_ongoing_requests=4, max_queued_requests=8, num_cpus=0.2, retry_after_s=2.0)
    deployed(replace(server.config, replicas=limits))
    url = f"http://{server.http}"
    with Load(url, clients=12) as fits:  # as many as may be under way or wait
        time.sleep(5)
    before = resident_bytes()
    with Load(url, clients=120) as load:
        time.sleep(15)
        assert grpc_code(server) in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.OK)
    ended = time.monotonic()
    while requests.post(f"{url}/v1/calibrate", data=FILES[0], timeout=30).status_code != 200:
        assert time.monotonic() - ended < 5
        time.sleep(0.1)
    statuses = Counter(reply.status for reply in load.replies)
    print(statuses, f"memory {(resident_bytes() - before) / 1e6:.0f} MB more")
    assert set(statuses) == {200, 503}
    assert {reply.retry_after for reply in load.replies if reply.status == 503} == {"2"}
    usual, loaded = (p99([r for r in run.replies if r.status == 200]) for run in (fits, load))
    print(f"p99 of answered requests: {usual:.2f} s with 12 clients, {loaded:.2f} s with 120")
    assert loaded < 10 * usual  # which is what a queue without bound would take, and longer
    assert resident_bytes() - before < 200_000_000


def grpc_code(server):
    tensor = Tensor("image", bytes_array(FILES[:1]))
    request = messages.ModelInferRequest(model_name="calibrator", raw_input_contents=[to_raw(tensor)])
    request.inputs.add(name="image", datatype="BYTES", shape=[1])
    codes = set()
    with grpc.insecure_channel(server.grpc) as channel:
        for _ in range(10):
            call = channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
            try:
                call(request.SerializeToString(), timeout=30)
            except grpc.RpcError as error:
                codes.add(error.code())
    assert codes <= {grpc.StatusCode.RESOURCE_EXHAUSTED}
    return next(iter(codes), grpc.StatusCode.OK)


def p99(replies):
    return float(np.quantile([reply.seconds for reply in replies], 0.99))


def resident_bytes():
    children = psutil.Process().children(recursive=True)
    return sum(child.memory_info().rss for child in children if child.name().startswith("ray::"))
