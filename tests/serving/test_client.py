"""The client against the running service; what it answers is what the models and the vote say directly."""

import io

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from synfer_ray.calibration.experts import load_expert
from synfer_ray.config import CalibrateConfig, ExpertConfig, RemoteModelConfig
from synfer_ray.errors import InputError
from synfer_ray.remote.model import RequestRefused
from synfer_ray.serving.client import CalibratorClient
from synfer_ray.stages.calibrator import Calibrator
from synfer_ray.stages.sample_rows import sample_rows
from synfer_ray.stages.voter import Voter
from synfer_ray.taxonomy.expressions import EXPRESSIONS
from tests.fake_dataset import face
from tests.serving.oip_server import running

SCHEMES = ("http", "grpc")
BROKEN = b"\x89PNG\r\n\x1a\n...."


@pytest.fixture(scope="module")
def files():
    """Eleven faces of several sizes and formats."""
    encoded = []
    for index in range(11):
        buffer = io.BytesIO()
        face(index, 30 + 5 * index).save(buffer, ("PNG", "JPEG", "WEBP")[index % 3])
        encoded.append(buffer.getvalue())
    return encoded


@pytest.fixture(scope="module")
def labels():
    return [None, "happy", "sad", "fear"] * 2 + ["anger", None, "neutral"]


@pytest.fixture(scope="module", params=SCHEMES)
def client(request, server):
    with CalibratorClient(f"{request.param}://{getattr(server, request.param)}", batch_size=3) as client:
        yield client


@pytest.fixture(scope="module")
def directly(serve_config, files, labels):
    """The rows of the calibrate job's own stages."""
    config = CalibrateConfig(bundle=serve_config.bundle, vote=serve_config.vote, batch_size=4)
    rows = [
        {
            "index": index,
            "image": {"bytes": file, "path": None},
            "assigned_label": None if label is None else EXPRESSIONS.index(label),
        }
        for index, (file, label) in enumerate(zip(files, labels))
    ]
    voted: pa.Table = Voter(config, config.voters)(sample_rows(rows, config.voters))
    return Calibrator(config.voters, config.vote)(voted).to_pylist()


def test_it_says_what_the_models_say(client, files, labels, directly):
    answers = client.calibrate(files, labels)
    assert len(answers) == len(directly) == 11
    for answer, row in zip(answers, directly):
        assert list(answer.probabilities) == list(EXPRESSIONS)
        assert list(answer.probabilities.values()) == row["label_probs"]
        assert answer.voters.keys() == {"feranno", "residual", "separable"}
        for name, opinion in answer.voters.items():
            assert [opinion[expression] for expression in EXPRESSIONS] == row[f"voter_{name}"]
        if row["reason"] is None:
            assert (EXPRESSIONS.index(answer.label), answer.decision) == (row["label"], row["decision"])
            assert answer.agreement == row["agreement"] and answer.reason == ""
        else:
            assert (answer.decision, answer.reason) == ("reject", row["reason"])
    assert {row["reason"] is None for row in directly} == {True, False}, "both kinds are among the faces"


def test_the_batch_does_not_change_an_answer(server, client, files):
    with CalibratorClient(f"http://{server.http}", batch_size=1, concurrency=3) as singly:
        assert singly.calibrate(files) == client.calibrate(files)


def test_attention_is_a_picture(client, files):
    (answer,) = client.calibrate(files[:1], attention=True)
    assert Image.open(io.BytesIO(answer.attention)).format == "PNG"
    assert client.calibrate(files[:1])[0].attention is None


def test_no_images_no_answers(client):
    assert client.calibrate([]) == []


def test_a_bad_image_is_told_and_spoils_no_other(client, files):
    with pytest.raises(InputError, match=r"image 4: .*damaged|image 4: .*unknown_format"):
        client.calibrate([*files[:4], BROKEN, *files[4:]])
    answers = client.calibrate_each([*files[:4], BROKEN, *files[4:]])
    assert [isinstance(answer, RequestRefused) for answer in answers] == [False] * 4 + [True] + [False] * 7
    assert answers[:4] + answers[5:] == client.calibrate(files)


def test_a_label_that_is_no_expression_is_refused(client, files):
    with pytest.raises(InputError, match="sleepy"):
        client.calibrate(files[:1], ["sleepy"])
    with pytest.raises(InputError, match="2 labels for 1 images"):
        client.calibrate(files[:1], ["sad", "sad"])


def test_it_states_what_it_is(client, serve_config):
    assert client.voters == tuple(serve_config.voters)
    assert client.fingerprint() == client.fingerprint()
    assert client.parameters()["max_faces"] == "16"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_another_server_is_no_calibrator(scheme):
    with running() as other, pytest.raises(InputError, match="calibrator"):
        CalibratorClient(getattr(other, scheme), retries=0)


@pytest.mark.parametrize("wrong", [{"concurrency": 0}, {"batch_size": 0}])
def test_no_requests_at_all_are_refused(wrong):
    with pytest.raises(InputError, match="at least 1"):
        CalibratorClient("http://127.0.0.1:9", **wrong)


EXPERT_INPUTS = {
    "encoded": {"input_name": "image", "layout": "encoded"},
    "pixels": {"input_name": "pixels", "layout": "NHWC"},
}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("form", EXPERT_INPUTS)
def test_the_service_votes_as_an_expert(server, client, files, scheme, form):
    url = f"{scheme}://{getattr(server, scheme)}"
    remote = RemoteModelConfig(
        url=url, model="calibrator", output_name="probabilities", **EXPERT_INPUTS[form]
    )
    order = ",".join(EXPRESSIONS)
    expert = load_expert(
        ExpertConfig(
            "served", "triton", input_size=32, label_order=order, output="probabilities", remote=remote
        )
    )
    squares = [Image.open(io.BytesIO(file)).convert("RGB").resize((32, 32)) for file in files]
    pixels = np.stack([np.asarray(square, np.float32).transpose(2, 0, 1) / 127.5 - 1 for square in squares])
    encoded = []
    for square in squares:
        buffer = io.BytesIO()
        square.save(buffer, "PNG")
        encoded.append(buffer.getvalue())
    expected = [list(answer.probabilities.values()) for answer in client.calibrate(encoded)]
    np.testing.assert_allclose(expert.predict(pixels), expected, rtol=1e-5)


def test_nobody_at_the_url_is_bad_input():
    with pytest.raises(InputError, match="does not answer, tried 1 times"):
        CalibratorClient("grpc://127.0.0.1:9", retries=0)
