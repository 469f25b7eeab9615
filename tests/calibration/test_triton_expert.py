"""Experts behind a server that shares no code with ours; `tests/serving` has those behind our own."""

import numpy as np
import pytest

from synfer_ray.calibration.experts import OnnxExpert, load_expert
from synfer_ray.calibration.triton_expert import TritonExpert
from synfer_ray.config import CalibrateConfig, ExpertConfig, RemoteModelConfig
from synfer_ray.errors import InputError
from synfer_ray.settings import load_config
from synfer_ray.storage.bundle import expert_fingerprint
from tests.calibration.tiny_onnx import linear_model
from tests.serving.oip_server import SIDE, WEIGHTS, running

LAYOUTS = {"chw": "NCHW", "hwc": "NHWC", "files": "encoded"}


@pytest.fixture(scope="module")
def server():
    with running() as server:
        yield server


@pytest.fixture(scope="module")
def images():
    """Eleven images with whole pixel values, at twice the model's side."""
    pixels = np.random.default_rng(0).integers(0, 256, (11, 3, 2 * SIDE, 2 * SIDE)).astype(np.float32)
    return pixels / 127.5 - 1


def spec(url: str, model: str = "chw", **changes) -> ExpertConfig:
    remote = {"layout": LAYOUTS.get(model, "NCHW"), "batch_size": 4, "retries": 2, "timeout": 10.0}
    settings = {key: changes.pop(key) for key in list(changes) if key not in vars(RemoteModelConfig())}
    return ExpertConfig(
        **{"name": "remote", "kind": "triton", "input_size": SIDE, "mean": [0.0], "std": [1.0]}
        | {"label_order": "fer2013"}
        | settings,
        remote=RemoteModelConfig(url=url, model=model, **remote | changes),
    )


@pytest.mark.parametrize("scheme", ["http", "grpc"])
@pytest.mark.parametrize("model", LAYOUTS)
def test_a_server_votes_as_the_same_model_at_hand_does(server, images, tmp_path, scheme, model):
    path = tmp_path / "linear.onnx"
    path.write_bytes(linear_model(WEIGHTS, ["N", 3, SIDE, SIDE]))
    local = OnnxExpert("local", path, "fer2013", input_size=SIDE, mean=(0.0,), std=(1.0,), temperature=2.0)
    remote = load_expert(spec(getattr(server, scheme), model, temperature=2.0))
    assert isinstance(remote, TritonExpert) and remote.name == "remote"
    rounding = 1e-6 if model == "chw" else 0.01  # the others send pixels of eight bits
    np.testing.assert_allclose(remote.predict(images), local.predict(images), atol=rounding)
    assert np.ptp(remote.predict(images), axis=0).max() > 3 * rounding


def test_pixels_of_eight_bits_arrive_unchanged(server, images):
    small = np.ascontiguousarray(images[:, :, :SIDE, :SIDE])
    floats, bytes_, files = (load_expert(spec(server.http, model)).predict(small) for model in LAYOUTS)
    np.testing.assert_allclose(bytes_, floats, atol=1e-6)
    np.testing.assert_array_equal(bytes_, files)


def test_probabilities_and_logits_are_told_apart(server, images):
    logits = load_expert(spec(server.http)).predict(images)
    probabilities = load_expert(spec(server.http, output="probabilities")).predict(images)
    assert not np.allclose(logits, probabilities)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-6)


def test_a_server_without_the_binary_extension_is_sent_json(images):
    with running("--json-only") as server:
        plain = load_expert(spec(server.http)).predict(images)
        np.testing.assert_allclose(plain, load_expert(spec(server.grpc)).predict(images), rtol=1e-6)
        with pytest.raises(InputError, match="binary tensor extension"):
            load_expert(spec(server.http, "files"))


@pytest.mark.parametrize("scheme", ["http", "grpc"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "nobody"}, "no model 'nobody'"),
        ({"input_name": "pixels"}, r"unknown input of model 'chw' at \S+ 'pixels'; choices: images"),
        ({"output_name": "x"}, "unknown output of model 'chw'"),
        ({"layout": "NHWC"}, r"'images' is FP32 \[-1, 3, 8, 8\].* need FP32 or .* \[-1, 8, 8, 3\]"),
        ({"layout": "encoded"}, r"'images' is FP32 .* need BYTES \[-1\]"),
        ({"input_size": 9}, r"\[-1, 3, 9, 9\]"),
        ({"grey": True}, r"\[-1, 1, 8, 8\]"),
        ({"label_order": "affectnet8"}, r"'scores' is FP32 \[-1, 7\].* 8 classes .* contempt"),
        ({"model": "short"}, r"shape \[2, 6\] for 2 images"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"layout": "CHW"}, "unknown layout 'CHW'"),
        ({"token_env": "NO_SUCH_TOKEN"}, "NO_SUCH_TOKEN"),
    ],
)
def test_a_wrong_description_fails_at_the_start(server, scheme, changes, message):
    with pytest.raises(InputError, match=message):
        load_expert(spec(getattr(server, scheme), **changes))


@pytest.mark.parametrize("url", ["127.0.0.1:8000", "ftp://host:1", "http://", "http://me:word@host:1"])
def test_a_malformed_url_is_refused(url):
    with pytest.raises(InputError, match="server URL"):
        load_expert(spec(url))


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_nobody_at_the_url_is_bad_input(scheme):
    with pytest.raises(InputError, match="does not answer, tried 2 times"):
        load_expert(spec(f"{scheme}://127.0.0.1:9", retries=1))


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_an_overloaded_server_is_asked_again_and_given_up(scheme, images):
    with running("--failures", "1") as server:
        load_expert(spec(getattr(server, scheme), retries=1)).predict(images[:1])
    with running("--failures", "9") as server, pytest.raises(ConnectionError, match="2 times: busy"):
        load_expert(spec(getattr(server, scheme), retries=1))


def test_a_server_that_dies_is_no_bad_input(images):
    with running() as server:
        expert = load_expert(spec(server.http, retries=1))
    with pytest.raises(ConnectionError, match="does not answer"):
        expert.predict(images)


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_the_token_comes_from_the_environment(scheme, images, monkeypatch):
    monkeypatch.setenv("FACES_TOKEN", "s3cret")
    with running("--token", "s3cret") as server:
        url = getattr(server, scheme)
        assert load_expert(spec(url, token_env="FACES_TOKEN")).predict(images).shape == (11, 7)
        with pytest.raises(InputError, match="bearer token is needed"):
            load_expert(spec(url))


def test_settings_describe_it_and_its_fingerprint_follows_the_model(server, tmp_path):
    keys = ["kind=triton", "label_order=fer2013", f"remote.url={server.http}", "remote.model=chw"]
    overrides = [f"experts.far.{key}" for key in keys]
    config = load_config(CalibrateConfig, None, ["input=x", "output=y", *overrides])
    assert config.experts["far"].remote.model == "chw"
    far = expert_fingerprint("far", tmp_path, config.experts)
    assert far == expert_fingerprint("far", tmp_path, config.experts)
    config.experts["far"].remote.model = "hwc"
    assert far != expert_fingerprint("far", tmp_path, config.experts)
