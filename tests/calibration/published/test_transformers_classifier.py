import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import (
    AutoImageProcessor,
    ConvNextConfig,
    ConvNextForImageClassification,
    ConvNextImageProcessor,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from synfer_ray.calibration.experts import load_expert
from synfer_ray.calibration.published.transformers_classifier import load_transformers, pixels_of
from synfer_ray.config import ExpertConfig
from synfer_ray.errors import InputError
from synfer_ray.storage.bundle import expert_fingerprint
from synfer_ray.taxonomy.expressions import EXPRESSIONS

# As uploaders write them: other spellings, another order, classes beside the seven.
NAMES = ["Angry", "contempt", "DISGUST", "fearful", "happiness", "Neutral", "sad", "surprised"]


def save(folder, names=NAMES, processor=None, **changes):
    torch.manual_seed(0)
    settings = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = ViTConfig(
        image_size=32,
        patch_size=16,
        id2label=dict(enumerate(names)),
        num_labels=len(names),
        **settings | changes,
    )
    ViTForImageClassification(config).save_pretrained(folder)
    (processor or ViTImageProcessor(size=32)).save_pretrained(folder)
    return str(folder)


def photo(side=48):
    """A smooth picture as the library gets it, and as our pixels."""
    coarse = np.random.default_rng(1).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
    pixels = np.asarray(picture, np.float32).transpose(2, 0, 1)[None] / 127.5 - 1
    return picture, np.ascontiguousarray(pixels)


def test_the_librarys_own_answer_by_name(tmp_path):
    folder = save(tmp_path / "vit")
    picture, pixels = photo()
    model = ViTForImageClassification.from_pretrained(folder).eval()
    inputs = AutoImageProcessor.from_pretrained(folder, backend="pil")(picture, return_tensors="pt")
    with torch.no_grad():
        theirs = model(**inputs).logits[0].softmax(-1).numpy()
    ours = load_expert(ExpertConfig("vit", "transformers", folder)).predict(pixels)[0]
    seven = {"anger": 0, "disgust": 2, "fear": 3, "happy": 4, "neutral": 5, "sad": 6, "surprise": 7}
    expected = np.array([theirs[seven[name]] for name in EXPRESSIONS])
    np.testing.assert_allclose(ours, expected / expected.sum(), atol=2e-3)
    assert expert_fingerprint("vit", tmp_path, {"vit": ExpertConfig("", "transformers", folder)})


@pytest.mark.parametrize(
    "processor",
    [
        ViTImageProcessor(
            size={"height": 40, "width": 24}, image_mean=[0.4, 0.5, 0.6], image_std=[0.2, 0.3, 0.4]
        ),
        ViTImageProcessor(size=32, resample=3, do_normalize=False),
        ViTImageProcessor(size=32, rescale_factor=1 / 127.5),
        ConvNextImageProcessor(size={"shortest_edge": 64}, crop_pct=0.875),
    ],
    ids=["two sides", "bicubic, in 0..1", "in 0..2", "resize and crop"],
)
def test_the_processors_settings_are_honoured(processor):
    picture, pixels = photo(96)
    theirs = torch.as_tensor(processor(picture, return_tensors="np")["pixel_values"])
    ours = pixels_of(processor, "x")(torch.from_numpy(pixels))
    assert ours.shape == theirs.shape
    assert (ours - theirs).abs().max() < 0.04 * theirs.std()


def test_convolutional_models_work_too(tmp_path):
    sizes = {"num_channels": 3, "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
    names = dict(enumerate(EXPRESSIONS))
    models = [
        ResNetForImageClassification(ResNetConfig(**sizes, layer_type="basic", id2label=names, num_labels=7)),
        ConvNextForImageClassification(
            ConvNextConfig(hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], id2label=names, num_labels=7)
        ),
    ]
    for index, model in enumerate(models):
        folder = tmp_path / str(index)
        model.save_pretrained(folder)
        ConvNextImageProcessor(size={"shortest_edge": 32}).save_pretrained(folder)
        votes = load_expert(ExpertConfig("x", "transformers", str(folder))).predict(photo()[1])
        assert votes.shape == (1, 7) and votes.sum() == pytest.approx(1, abs=1e-5)


def test_unnamed_classes_need_a_label_order(tmp_path):
    folder = save(tmp_path / "vit", names=[f"LABEL_{index}" for index in range(7)])
    with pytest.raises(InputError, match="lacks neutral, happy"):
        load_transformers(folder)
    assert load_transformers(folder, "rafdb").columns.tolist() == [6, 3, 4, 0, 1, 2, 5]


def test_models_that_do_not_fit_are_refused(tmp_path):
    folder = tmp_path / "vit"
    save(folder)
    file = folder / "model.safetensors"
    weights = load_file(file)
    for change, message in [
        ({"classifier.bias": None}, r"missing: classifier\.bias"),
        ({"more": torch.ones(1)}, "unexpected: more"),
        ({"classifier.bias": torch.full((8,), torch.nan)}, r"not finite: classifier\.bias"),
        ({"classifier.bias": torch.ones(9)}, r"classifier\.bias"),
    ]:
        changed = {key: value for key, value in (weights | change).items() if value is not None}
        save_file(changed, file, metadata={"format": "pt"})
        with pytest.raises(InputError, match=message):
            load_transformers(str(folder))
    file.unlink()
    torch.save(weights, folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="no image classifier that can be loaded"):
        load_transformers(str(folder))
    with pytest.raises(InputError, match="neither a folder nor a hub repository"):
        load_transformers("no such/repository name")


def test_code_of_a_repository_does_not_run(tmp_path):
    folder = tmp_path / "vit"
    save(folder)
    canary = tmp_path / "canary"
    (folder / "evil.py").write_text(f"open({str(canary)!r}, 'w')\n")
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {key: "evil.Evil" for key in ("AutoConfig", "AutoModel")}}
    config["auto_map"]["AutoModelForImageClassification"] = "evil.Evil"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="no image classifier that can be loaded"):
        load_transformers(str(folder))
    assert not canary.exists()


def test_a_processor_that_does_more_is_refused():
    class Inverting(type(ViTImageProcessor(size=32))):
        def __call__(self, *args, **kwargs):
            values = super().__call__(*args, **kwargs)
            values["pixel_values"] = -np.asarray(values["pixel_values"])
            return values

    with pytest.raises(InputError, match="Inverting does more than resize, crop and scale"):
        pixels_of(Inverting(size=32), "x")
