import os
import signal
import subprocess
import sys
import threading
import time

import pytest
import requests
import tritonclient.grpc
from tritonclient.utils import InferenceServerException

from synfer_ray.config import ServeConfig
from synfer_ray.errors import InputError
from synfer_ray.serving.job import serve_calibrator, where
from tests.fake_dataset import face, png
from tests.serving.conftest import free_port


def test_people_are_told_where_to_look():
    shown = where(ServeConfig(host="127.0.0.1", port=81, grpc_port=82))
    for address in ("http://127.0.0.1:81/\n", "http://127.0.0.1:81/docs", "127.0.0.1:82", "Ctrl-C"):
        assert address in shown
    assert "gRPC" not in where(ServeConfig(grpc_port=0))


def test_a_token_that_is_not_set_and_a_missing_bundle_are_told_before_ray_starts(monkeypatch):
    monkeypatch.delenv("NO_TOKEN", raising=False)
    with pytest.raises(InputError, match="NO_TOKEN"):
        serve_calibrator(ServeConfig(token_env="NO_TOKEN"))
    with pytest.raises(InputError, match="'nowhere'"):
        serve_calibrator(ServeConfig(bundle="nowhere"))


@pytest.mark.slow
def test_the_command_starts_answers_and_drains_when_interrupted(tiny_bundle):
    port, grpc_port = free_port(), free_port()
    settings = [f"bundle={tiny_bundle}", f"port={port}", f"grpc_port={grpc_port}", "token_env=SYNFER_TOKEN"]
    environment = os.environ | {"RAY_ADDRESS": "local", "SYNFER_TOKEN": "s3cret"}
    process = subprocess.Popen(
        [sys.executable, "-c", "from synfer_ray.cli import main; main()", "serve", *settings],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )
    shown = []
    reader = threading.Thread(target=lambda: shown.extend(process.stdout))
    reader.start()
    url, statuses = f"http://127.0.0.1:{port}/v1/calibrate", []
    try:
        deadline = time.monotonic() + 200
        while not any("Ctrl-C" in line for line in shown):
            assert process.poll() is None and time.monotonic() < deadline, shown
            time.sleep(0.5)
        assert requests.post(url, data=png(face(1)), timeout=60).status_code == 401
        allowed = {"Authorization": "Bearer s3cret"}
        client = tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{grpc_port}")
        with pytest.raises(InferenceServerException, match="UNAUTHENTICATED"):
            client.get_model_metadata("calibrator")
        assert client.get_model_metadata("calibrator", headers={"authorization": "Bearer s3cret"}).versions
        files = [("file", (f"{k}.png", png(face(k)))) for k in range(64)]

        def ask():
            statuses.append(requests.post(url, files=files, headers=allowed, timeout=60).status_code)

        last = threading.Thread(target=ask)
        last.start()
        time.sleep(0.3)  # it is under way
        process.send_signal(signal.SIGINT)
        last.join()
        assert process.wait(timeout=90) == 0
    finally:
        process.kill()
        reader.join()
    assert statuses == [200]
    assert "stopping\n" in shown and not any("Traceback" in line for line in shown)
