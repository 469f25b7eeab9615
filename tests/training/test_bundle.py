import json
from pathlib import Path

import pytest

from synfer_ray.errors import InputError
from synfer_ray.training.bundle import PARTS, train_bundle, train_part
from tests.training.conftest import tiny_training, write_fetext

pytestmark = pytest.mark.usefixtures("two_cpus")


def test_a_part_is_trained_on_ray_train_and_then_left_alone(tmp_path, capsys):
    from diffusers import AutoencoderKL

    config = tiny_training(write_fetext(tmp_path / "fetext"), tmp_path)
    train_part(config, "autoencoder")
    bundle = Path(config.bundle)
    trained = json.loads((bundle / "training.json").read_text())["autoencoder"]
    assert trained["metrics"]["step"] == 4
    assert trained["settings"]["batch_size"] == 8
    assert AutoencoderKL.from_pretrained(bundle / "vae").config.latent_channels == 4

    weights = (bundle / "vae" / "diffusion_pytorch_model.safetensors").read_bytes()
    train_part(config, "autoencoder")
    assert "autoencoder: in place" in capsys.readouterr().out
    assert (bundle / "vae" / "diffusion_pytorch_model.safetensors").read_bytes() == weights


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_bundle_is_trained_once_and_loads_in_diffusers(tmp_path, capsys):
    from diffusers import StableDiffusionPipeline

    config = tiny_training(write_fetext(tmp_path / "fetext"), tmp_path)
    train_bundle(config)
    bundle = Path(config.bundle)
    adapter = json.loads((bundle / "au_adapter" / "config.json").read_text())
    assert adapter["supported"] == ["AU01", "AU12", "AUL12", "AUR12"]
    pipeline = StableDiffusionPipeline.from_pretrained(bundle)
    image = pipeline("a happy face", num_inference_steps=2, output_type="np").images[0]
    assert image.shape == (32, 32, 3)

    capsys.readouterr()
    train_bundle(config)
    in_place = [line for line in capsys.readouterr().out.splitlines() if line.endswith("in place")]
    assert in_place == [f"{name}: in place" for name in PARTS]


def test_input_that_is_no_fetext_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not a FEText folder"):
        train_part(tiny_training(str(tmp_path / "nothing"), tmp_path), "autoencoder")
