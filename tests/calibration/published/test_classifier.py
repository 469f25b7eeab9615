import sys
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from synfer_ray.calibration.experts import load_expert, load_network
from synfer_ray.calibration.published.classifier import PUBLISHED, load_published
from synfer_ray.config import ExpertConfig, GenerateConfig, GuidanceConfig
from synfer_ray.errors import InputError
from synfer_ray.stages.image_generator import load_guidance
from synfer_ray.storage.foreign import import_weights
from synfer_ray.taxonomy.expressions import EXPRESSIONS, LABEL_ORDERS, to_expressions
from tests.calibration.published.layouts import (
    ada_df,
    apvit,
    face_like,
    poster_v2,
    random_weights,
    save_pickle,
)

LAYOUTS = {"poster_v2": poster_v2, "apvit": apvit, "ada_df": ada_df}


def released(kind: str, classes: int = 7) -> dict[str, torch.Tensor]:
    """Random weights in the released layout; modules with two names have the same weights under both."""
    weights = random_weights(LAYOUTS[kind](classes))
    for branch in ("branch_1", "branch_2"):
        for key in [
            key for key in weights if key.startswith((f"{branch}_feature.", f"{branch}_classifier."))
        ]:
            twin = key.replace("_feature", "").replace("_classifier", ".4")
            weights[twin] = weights[key]
    return weights


@pytest.mark.parametrize("classes", [7, 8])
@pytest.mark.parametrize("kind", list(PUBLISHED))
def test_every_released_layout_fits_key_for_key(kind, classes):
    layout, architecture = LAYOUTS[kind](classes), PUBLISHED[kind]
    with torch.device("meta"):
        ours = {key: tuple(value.shape) for key, value in architecture(classes).state_dict().items()}
    unused = tuple(architecture.UNUSED)
    assert ours == {key: shape for key, shape in layout.items() if not (unused and key.startswith(unused))}


# Logits of the second picture, as the authors' code computes them from the same weights.
AUTHORS = {
    ("poster_v2", 7): [-0.20967, 0.09731, 1.63663, -0.32086, 0.35695, 0.00921, 0.07733],
    ("poster_v2", 8): [0.10131, -0.05431, -0.35888, 0.69928, -0.68061, 0.56806, -0.2347, -0.14035],
    ("apvit", 7): [0.41076, -1.75167, 0.60287, -0.25631, 0.36965, -1.00473, -1.74115],
    ("ada_df", 7): [-0.8478, -0.03059, -0.28989, -0.39415, -1.13687, -0.76432, -0.21963],
}


@pytest.mark.parametrize(("kind", "classes"), [("poster_v2", 7), ("apvit", 7), ("ada_df", 7)])
@torch.inference_mode()
def test_logits_are_those_of_the_authors_code(kind, classes):
    network = PUBLISHED[kind](classes).eval()
    import_weights(network, released(kind, classes), "random", network.UNUSED)
    assert network(face_like(2))[1].tolist() == pytest.approx(AUTHORS[kind, classes], abs=5e-5)


def test_a_file_with_training_recorders_becomes_a_voter(tmp_path, monkeypatch, capsys):
    """POSTER++ as its script saves it: DataParallel, SAM's state and two recorders of NumPy arrays."""
    recorders = {}
    for name in ("RecorderMeter", "RecorderMeter1"):
        cls = type(name, (), {"__module__": "__main__"})
        monkeypatch.setattr(sys.modules["__main__"], name, cls, raising=False)
        recorders[name] = cls()
        recorders[name].epoch_accuracy = np.zeros((200, 2), dtype=np.float32)
    weights = released("poster_v2", 8)
    path = save_pickle(
        tmp_path / "affectnet-8-model_best.pth",
        weights,
        epoch=12,
        best_acc=torch.tensor(63.77),
        optimizer={"state": {0: {"old_p": torch.ones(2)}}, "param_groups": [{"lr": 1e-6, "params": [0]}]},
        recorder1=recorders["RecorderMeter1"],
        recorder=recorders["RecorderMeter"],
    )
    expert = load_expert(ExpertConfig("poster", "poster_v2", str(path), temperature=2.0))
    assert f"{path}: loaded 711 tensors, missing 0, unexpected 0, not needed 36" in capsys.readouterr().out
    votes = expert.predict(face_like(2).numpy())
    logits = np.array(AUTHORS["poster_v2", 8]) / 2
    expected = to_expressions(np.exp(logits) / np.exp(logits).sum(), "affectnet8")
    np.testing.assert_allclose(votes[1], expected, atol=1e-4)


def test_classes_go_by_name_and_unknown_orders_are_asked_for(tmp_path):
    path = str(save_pickle(tmp_path / "ada.pth", released("ada_df"), prefix=""))
    with torch.inference_mode():
        plain = load_published("ada_df", path, "rafdb").network(face_like(2))
        known = load_published("ada_df", path, "rafdb")(face_like(2))
        named = load_published("ada_df", path, "anger,disgust,fear,happy,sad,surprise,neutral")(face_like(2))
    for place, name in enumerate(EXPRESSIONS):
        assert torch.equal(known[:, place], plain[:, LABEL_ORDERS["rafdb"].index(name)])
        assert torch.equal(named[:, place], plain[:, LABEL_ORDERS["fer2013"].index(name)])
    with pytest.raises(InputError, match="7 classes; label_order names 8"):
        load_published("ada_df", path, "affectnet8")
    poster = str(save_pickle(tmp_path / "poster.pth", {"VIT.head.linear.bias": torch.zeros(7)}))
    for kind, file in (("poster_v2", poster), ("ada_df", path)):
        with pytest.raises(InputError, match=r"7 classes, whose order .* affectnet7 .* rafdb"):
            load_published(kind, file)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"feature.0.weight": None}, "missing: feature.0.weight"),
        ({"branch_3.0.weight": torch.ones(1)}, "unexpected: branch_3.0.weight"),
        (
            {"alpha_2.0.weight": torch.ones(2, 512)},
            r"wrong shape: alpha_2.0.weight \(2, 512\) instead of \(1, 512\)",
        ),
        ({"alpha_2.0.weight": torch.full((1, 512), torch.inf)}, "not finite: alpha_2.0.weight"),
        (
            {"branch_2.4.bias": None},
            "is no ada_df checkpoint: it lacks branch_2.4.bias and begins with alpha_1",
        ),
    ],
)
def test_damaged_files_are_refused_with_the_first_differing_keys(tmp_path, change, message):
    changed = {key: value for key, value in (released("ada_df") | change).items() if value is not None}
    path = str(save_pickle(tmp_path / "ada.pth", changed))
    with pytest.raises(InputError, match=message):
        load_published("ada_df", path, "rafdb")


def test_a_published_classifier_can_guide(tmp_path):
    """Its gradient reaches every region of the image, through its own preprocessing."""
    path = str(save_pickle(tmp_path / "ada.pth", released("ada_df"), prefix=""))
    config = GenerateConfig(
        guidance=GuidanceConfig(guide="ada", preview=False),
        experts={"ada": ExpertConfig("", "ada_df", path, label_order="rafdb")},
    )
    components = SimpleNamespace(device="cpu", dtype=torch.float32)
    guide = load_guidance(config, tmp_path, components).guide
    images = face_like(1, side=48).requires_grad_()
    guide(images).log_softmax(-1)[:, EXPRESSIONS.index("happy")].sum().backward()
    assert (images.grad.abs().view(1, 3, 4, 12, 4, 12).amax((0, 1, 3, 5)) > 0).all()
    with pytest.raises(InputError, match=r"'onnx'.*choices: bundle, poster_v2, apvit, ada_df, transformers"):
        load_network(ExpertConfig("guide", "onnx", path))
