import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from synfer_ray.calibration.experts import NetworkExpert, OnnxExpert, load_expert, resize
from synfer_ray.calibration.networks import FERClassifier
from synfer_ray.config import ExpertConfig
from synfer_ray.errors import InputError
from synfer_ray.storage.weights import save_model
from synfer_ray.taxonomy.expressions import EXPRESSIONS, LABEL_ORDERS
from tests.calibration.tiny_onnx import linear_model

RAF_ORDER = LABEL_ORDERS["rafdb"]


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).uniform(-1, 1, (3, 3, 4, 4)).astype(np.float32)


@pytest.fixture
def weights() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(48, 7)).astype(np.float32)


def write(path: Path, weights: np.ndarray, shape=("N", 3, 4, 4)) -> Path:
    path.write_bytes(linear_model(weights, shape))
    return path


def softmax(scores: np.ndarray) -> np.ndarray:
    return torch.from_numpy(scores).softmax(-1).numpy()


def test_onnx_logits_are_mapped_by_name(tmp_path, images, weights) -> None:
    mean, std = [0.5, 0.4, 0.3], [0.2, 0.3, 0.4]
    path = write(tmp_path / "m.onnx", weights)
    expert = OnnxExpert("linear", path, RAF_ORDER, 4, mean=mean, std=std, temperature=2)
    pixels = ((images + 1) / 2 - np.reshape(mean, (3, 1, 1))) / np.reshape(std, (3, 1, 1))
    expected = softmax(pixels.reshape(3, -1).astype(np.float32) @ weights / 2)
    probs = expert.predict(images)
    assert probs.dtype == np.float32
    for column, name in enumerate(RAF_ORDER):
        np.testing.assert_allclose(probs[:, EXPRESSIONS.index(name)], expected[:, column], rtol=1e-3)


def test_permuting_a_models_classes_with_its_names_changes_nothing(tmp_path, images, weights) -> None:
    order = np.random.default_rng(2).permutation(7)
    plain = OnnxExpert("a", write(tmp_path / "a.onnx", weights), RAF_ORDER, 4)
    names = [RAF_ORDER[i] for i in order]
    permuted = OnnxExpert("b", write(tmp_path / "b.onnx", weights[:, order]), names, 4)
    np.testing.assert_allclose(plain.predict(images), permuted.predict(images), atol=1e-6)


def test_classes_outside_the_seven_are_dropped(tmp_path, images) -> None:
    weights = np.random.default_rng(1).normal(size=(48, 8)).astype(np.float32)
    expert = OnnxExpert("eight", write(tmp_path / "m.onnx", weights), "affectnet8", 4)
    expected = softmax(images.reshape(3, -1) @ weights)[:, :7]
    np.testing.assert_allclose(expert.predict(images), expected / expected.sum(1, keepdims=True), rtol=1e-4)


def test_probabilities_pass_and_take_a_temperature(tmp_path, images) -> None:
    weights = np.zeros((16, 7), np.float32)
    weights[0] = [0.4, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]
    flat = np.full((1, 3, 4, 4), 1.0, np.float32)
    settings = {"input_size": 4, "grey": True, "mean": [0.0], "std": [1.0], "output": "probabilities"}
    path = write(tmp_path / "m.onnx", weights, ("N", 1, 4, 4))
    plain = OnnxExpert("p", path, "affectnet7", **settings).predict(flat)[0]
    np.testing.assert_allclose(plain, weights[0], rtol=1e-4)
    cooled = OnnxExpert("p", path, "affectnet7", temperature=0.5, **settings).predict(flat)[0]
    np.testing.assert_allclose(cooled, weights[0] ** 2 / (weights[0] ** 2).sum(), rtol=1e-4)


def test_bad_models_are_named(tmp_path, weights) -> None:
    good = write(tmp_path / "good.onnx", weights)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(good.read_bytes()[:200])
    flat = write(tmp_path / "flat.onnx", weights, ("N", 48))
    fixed = write(tmp_path / "fixed.onnx", weights, (1, 3, 4, 4))
    for path, settings, message in [
        (tmp_path / "absent.onnx", {}, "missing model file: .*absent.onnx"),
        (broken, {}, "damaged model file: .*broken.onnx"),
        (flat, {}, r"flat.onnx: one input of shape \['N', 3, 4, 4\]"),
        (fixed, {}, r"fixed.onnx: one input .*\[1, 3, 4, 4\]"),
        (good, {"grey": True}, r"\['N', 1, 4, 4\]"),
        (good, {"input_size": 8}, r"\['N', 3, 8, 8\]"),
        (good, {"label_order": "affectnet8"}, r"\[7\] do not fit the 8 classes .*contempt"),
        (good, {"label_order": "afectnet"}, "unknown label order 'afectnet'"),
        (good, {"label_order": ["happy", "sad"]}, "lacks neutral"),
        (good, {"output": "scores"}, "choices: logits, probabilities"),
    ]:
        with pytest.raises(InputError, match=message):
            OnnxExpert("bad", path, **{"label_order": RAF_ORDER, "input_size": 4} | settings)


def test_an_oversized_model_is_refused(tmp_path, weights, monkeypatch) -> None:
    monkeypatch.setattr("synfer_ray.calibration.experts.MAX_ONNX_BYTES", 1000)
    with pytest.raises(InputError, match="larger than"):
        OnnxExpert("big", write(tmp_path / "m.onnx", weights), RAF_ORDER, 4)


def test_resize_leaves_images_of_the_right_size_alone(images) -> None:
    np.testing.assert_array_equal(resize(images, 4, grey=False), images)
    np.testing.assert_allclose(
        resize(images, 4, grey=True)[:, 0], np.einsum("bchw,c->bhw", images, [0.299, 0.587, 0.114]), atol=1e-6
    )


def test_bundle_expert_divides_by_both_temperatures(tmp_path) -> None:
    model = FERClassifier("residual", temperature=2.0).eval()
    save_model(model, tmp_path / "r")
    images = np.random.default_rng(0).uniform(-1, 1, (2, 3, 64, 64)).astype(np.float32)
    expert = load_expert(ExpertConfig(name="r", path=str(tmp_path / "r"), temperature=3.0))
    with torch.no_grad():
        expected = (model.network(torch.from_numpy(images)) / 6).softmax(-1).numpy()
    assert isinstance(expert, NetworkExpert) and expert.name == "r"
    np.testing.assert_allclose(expert.predict(images), expected, atol=1e-6)


def test_load_expert_reads_an_onnx_config(tmp_path, images, weights) -> None:
    path = str(write(tmp_path / "m.onnx", weights))
    spec = ExpertConfig(
        "x", "onnx", path, input_size=4, label_order=",".join(RAF_ORDER), mean=[0.1], std=[0.2]
    )
    expected = OnnxExpert("x", path, "rafdb", 4, mean=[0.1], std=[0.2]).predict(images)
    np.testing.assert_array_equal(load_expert(spec).predict(images), expected)


def test_unknown_kind_and_missing_folder_are_named(tmp_path) -> None:
    with pytest.raises(InputError, match=r"onxx.*onnx"):
        load_expert(ExpertConfig(kind="onxx"))
    with pytest.raises(InputError, match="missing model file"):
        load_expert(ExpertConfig(path=str(tmp_path)))


@pytest.mark.parametrize("file", ["fer_minixception.onnx", "human_emotion.onnx"])
def test_third_party_experts_recognise_real_faces(file: str, third_party_models: Path, fer2013: Path) -> None:
    spec = ExpertConfig(
        name="x",
        kind="onnx",
        path=str(third_party_models / file),
        grey=True,
        label_order="fer2013",
        output="probabilities",
    )
    faces_file = pq.ParquetFile(fer2013 / "validation-00000-of-00001.parquet")
    batch = next(faces_file.iter_batches(200, columns=["image", "label"])).to_pydict()
    faces = [Image.open(io.BytesIO(image["bytes"])).convert("RGB") for image in batch["image"]]
    pixels = np.stack([np.asarray(face, dtype=np.float32).transpose(2, 0, 1) / 127.5 - 1 for face in faces])
    truth = [EXPRESSIONS.index(LABEL_ORDERS["fer2013"][label]) for label in batch["label"]]
    accuracy = (load_expert(spec).predict(pixels).argmax(1) == truth).mean()
    assert accuracy > 0.5
