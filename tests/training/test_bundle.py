import json
from pathlib import Path

import pytest

from synfer_ray.errors import InputError
from synfer_ray.training.bundle import PARTS, train_bundle, train_part
from tests.training.conftest import tiny_training, write_fetext

pytestmark = pytest.mark.usefixtures("local_ray")


def test_a_bundle_is_trained_once_and_loads_in_diffusers(tmp_path, capsys):
    from diffusers import StableDiffusionPipeline

    config = tiny_training(write_fetext(tmp_path / "fetext"), tmp_path)
    train_bundle(config)
    bundle = Path(config.bundle)
    trained = json.loads((bundle / "training.json").read_text())
    assert trained["feranno"]["metrics"]["step"] == 4
    assert json.loads((bundle / "au_adapter" / "config.json").read_text())["supported"] == [
        "AU01",
        "AU12",
        "AUL12",
        "AUR12",
    ]
    pipeline = StableDiffusionPipeline.from_pretrained(bundle)
    image = pipeline("a happy face", num_inference_steps=2, output_type="np").images[0]
    assert image.shape == (32, 32, 3)

    capsys.readouterr()
    weights = (bundle / "unet" / "diffusion_pytorch_model.safetensors").read_bytes()
    train_bundle(config)
    assert [line for line in capsys.readouterr().out.splitlines() if line.endswith("in place")] == [
        f"{name}: in place" for name in PARTS
    ]
    assert (bundle / "unet" / "diffusion_pytorch_model.safetensors").read_bytes() == weights


def test_input_that_is_no_fetext_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not a FEText folder"):
        train_part(tiny_training(str(tmp_path / "nothing"), tmp_path), "autoencoder")
