"""The stage that asks a service, against the stages that ask the models; no Ray."""

import io
import threading
import time

import pytest
import uvicorn
from pydantic import SecretStr

from synfer_ray.config import CalibrateConfig, RequestsConfig
from synfer_ray.errors import InputError
from synfer_ray.serving.remote_calibrator import RemoteCalibrator, bearer_token
from synfer_ray.serving.rest import rest_app
from synfer_ray.stages.calibrator import Calibrator
from synfer_ray.stages.sample_rows import rejection, sample_rows
from synfer_ray.stages.voter import Voter
from synfer_ray.taxonomy.expressions import EXPRESSIONS
from tests.fake_dataset import face

SECONDS = "vote_seconds"


@pytest.fixture(scope="module")
def config(service):
    server = uvicorn.Server(uvicorn.Config(rest_app(service), port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    yield CalibrateConfig(server=url, requests=RequestsConfig(concurrency=2, batch_size=3, retries=0))
    server.should_exit = True
    thread.join()


@pytest.fixture(scope="module")
def table():
    """Sixteen faces, each expression among the labels; one broken, one rejected before."""
    rows = []
    for index in range(16):
        buffer = io.BytesIO()
        face(index, 40).save(buffer, "PNG")
        label = None if index % 8 == 7 else index % 8
        image = {"bytes": buffer.getvalue(), "path": None}
        rows.append({"index": index, "image": image, "assigned_label": label, "reason": None})
    rows[3]["image"] = {"bytes": b"\x89PNG\r\n\x1a\n....", "path": None}
    rows[5] |= rejection("label", "not_a_basic_expression") | {"image": None}
    return sample_rows(rows, CalibrateConfig().voters)


def stage(config: CalibrateConfig, fingerprint: str | None = None) -> RemoteCalibrator:
    made = RemoteCalibrator(config, SecretStr(""), "")
    made.fingerprint = fingerprint or made.client.fingerprint()
    return made


def test_it_fills_what_voter_and_calibrator_fill(config, table, service):
    served = service.config
    here = CalibrateConfig(bundle=served.bundle, batch_size=service.ensemble.batch_size)
    expected = Calibrator(here.voters, served.vote)(Voter(here, here.voters)(table)).to_pylist()
    settled = stage(config)(table).to_pylist()
    kinds = {row["decision"] or row["reason"] for row in expected}
    assert {"agree", "low_confidence", "unknown_format", "not_a_basic_expression"} <= kinds
    for ours, theirs in zip(settled, expected, strict=True):
        assert ours | {SECONDS: None} == theirs | {SECONDS: None}


def test_another_service_than_at_the_start_is_told(config, table):
    with pytest.raises(InputError, match="models changed during this run, before to "):
        stage(config, "before")(table)


def test_the_token_is_in_no_text(monkeypatch):
    monkeypatch.setenv("SYNFER_TOKEN", "s3cret")
    token = bearer_token(CalibrateConfig())
    assert token.get_secret_value() == "s3cret" and "s3cret" not in f"{token} {token!r}"


def test_expressions_are_those_of_the_labels(table):
    labels = {row["assigned_label"] for row in table.to_pylist()} - {None}
    assert labels == set(range(len(EXPRESSIONS)))
