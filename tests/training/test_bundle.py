import json
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest
import torch
from safetensors.torch import load_file

from synfer_ray.calibration.feranno import load_annotator
from synfer_ray.calibration.wholeness import WholenessNet
from synfer_ray.config import ArchitectureConfig, FitConfig, TrainingConfig
from synfer_ray.diffusion.components import load_components
from synfer_ray.errors import InputError
from synfer_ray.storage.hub import MODEL_FILES
from synfer_ray.storage.weights import load_model
from synfer_ray.taxonomy.expressions import EXPRESSIONS
from synfer_ray.training.autoencoder import AutoencoderObjective
from synfer_ray.training.builds import build_diffusion
from synfer_ray.training.bundle import PARTS, complete, prepare, train_bundle, train_part
from synfer_ray.training.data import training_image_size
from tests.fake_dataset import fill
from tests.tiny import save_components, tiny_components
from tests.tiny_bundle import save_tiny_bundle
from tests.training.conftest import tiny_training, write_fetext

pytestmark = pytest.mark.usefixtures("two_cpus")


@pytest.mark.slow
def test_a_part_is_trained_on_ray_train_and_once_written_left_alone(tmp_path, capsys, monkeypatch):
    from diffusers import AutoencoderKL

    config = tiny_training(write_fetext(tmp_path / "fetext"), tmp_path)
    bundle = Path(config.bundle)
    with monkeypatch.context() as full_disk:
        full_disk.setattr(AutoencoderObjective, "export", Mock(side_effect=OSError("disk full")))
        with pytest.raises(OSError, match="disk full"):
            train_part(config, "autoencoder")
    assert not (bundle / "vae").exists() and not (bundle / "training.json").exists()
    train_part(config, "autoencoder")  # the trained network is in `runs`
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

    preference = FitConfig(steps=4)  # which waits for ratings
    config = tiny_training(write_fetext(tmp_path / "fetext"), tmp_path, preference=preference)
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
    assert in_place == [f"{name}: in place" for name in PARTS if name not in ("wholeness", "preference")]


@pytest.mark.slow
def test_wholeness_is_learnt_from_ratings_of_samples(tmp_path):
    fetext, rated = write_fetext(tmp_path / "fetext"), tmp_path / "rated"
    ratings = tmp_path / "ratings.csv"
    fill(rated, shards=4, rejected_every=100)
    said = [f"fake-{k:08d},{k % 3 / 2},{EXPRESSIONS[k % 7]}\n" for k in range(40)]
    ratings.write_text("sample_id,rating,read_as\n" + "".join(said))
    fit = FitConfig(steps=4, batch_size=8, report_every=2, checkpoint_every=2, validation_rows=8)
    config = tiny_training(fetext, tmp_path, rated=[str(rated)], ratings=str(ratings), wholeness=fit)
    save_tiny_bundle(Path(config.bundle))
    train_part(config, "wholeness")
    network = load_model(WholenessNet, Path(config.bundle) / "wholeness")
    assert network.config["channels"] == [8, 8, 16]  # of the bundle's expert
    assert network.config["reads"] and network.head[-1].out_features == 9
    trained = json.loads((Path(config.bundle) / "training.json").read_text())["wholeness"]
    assert 0 <= trained["metrics"]["validation_ordered"] <= 1
    assert 0 <= trained["metrics"]["validation_read_alike"] <= 1
    with pytest.raises(InputError, match=r"rated=\[DATASET\] ratings=FILE\.csv are needed"):
        train_part(replace(config, bundle=str(tmp_path / "other"), ratings=""), "wholeness")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"rated": "RATED"}, "one needs the other"),
        ({"ratings": "RATINGS.csv"}, "one needs the other"),
        ({"au_prior_typical": ["sad", "bored"]}, "bored"),
    ],
)
def test_what_is_needed_at_the_end_is_checked_before_anything_is_trained(tmp_path, wrong, message):
    config = tiny_training(write_fetext(tmp_path / "fetext"), tmp_path, **wrong)
    with pytest.raises(InputError, match=message):
        train_bundle(config)
    assert not Path(config.bundle).exists()


def test_a_base_brings_its_model_and_keeps_its_pickles(tmp_path):
    base = save_components(tiny_components(), tmp_path / "base")
    (base / "unet" / "diffusion_pytorch_model.bin").write_bytes(b"a pickle")
    config = tiny_training(write_fetext(tmp_path / "fetext"), tmp_path, base=str(base), image_size=64)
    prepare(config)
    copied = {str(path.relative_to(config.bundle)) for path in Path(config.bundle).rglob("*.*")}
    assert {*MODEL_FILES} <= copied and not any(name.endswith(".bin") for name in copied)
    assert load_components(config.bundle).folder == config.bundle
    assert training_image_size(config) == 64
    assert training_image_size(replace(config, image_size=None)) == 32

    (base / "vae" / "config.json").unlink()
    with pytest.raises(InputError, match=r"missing model file: .*vae/config.json"):
        prepare(replace(config, bundle=str(tmp_path / "other")))


def fine_tuning(tmp_path, **changes) -> TrainingConfig:
    """Settings that start from a tiny Stable Diffusion model with v-prediction."""
    base = save_components(tiny_components(adapter=False, prediction_type="v_prediction"), tmp_path / "base")
    fetext = write_fetext(tmp_path / "fetext")
    config = tiny_training(fetext, tmp_path, base=str(base), layouts=3, image_size=16, **changes)
    fit = replace(config.diffusion, steps=2, gradient_checkpointing=True, mixed_precision="bf16")
    return replace(config, diffusion=fit, au_adapter=fit, feranno=replace(fit, gradient_checkpointing=False))


def test_an_adapter_of_the_base_is_out_of_the_way_while_the_unet_is_tuned(tmp_path):
    with_adapter, without = (
        save_components(tiny_components(adapter=adapter), tmp_path / str(adapter))
        for adapter in (True, False)
    )
    noisy, text = torch.randn(1, 4, 8, 8), torch.randn(1, 12, 16)
    predictions = []
    for folder in (with_adapter, without):
        tuned = build_diffusion(str(folder), ArchitectureConfig(), pretrained=True, lora_rank=0)
        predictions.append(tuned.unet.eval()(noisy, 3, text).sample)
    torch.testing.assert_close(*predictions)


def test_a_tuned_model_does_not_say_where_it_came_from(tmp_path):
    folder = save_components(tiny_components(), tmp_path / "base")
    build_diffusion(str(folder), ArchitectureConfig(), pretrained=True, lora_rank=0).export(
        tmp_path / "tuned"
    )
    configs = [file.read_text() for file in (tmp_path / "tuned").rglob("*config.json")]
    assert len(configs) == 3 and not any(str(tmp_path) in config for config in configs)


def query_weights(folder: str) -> torch.Tensor:
    """Weights that LoRA trains too."""
    weights = load_components(folder).unet.state_dict()
    return weights["mid_block.attentions.0.transformer_blocks.0.attn2.to_q.weight"]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_base_is_fine_tuned_and_given_an_adapter_and_feranno(tmp_path):
    config = fine_tuning(tmp_path)
    for part in ("diffusion", "au_adapter", "feranno"):
        train_part(config, part)
    complete(config)

    tuned = load_components(config.bundle)
    assert tuned.adapter and tuned.scheduler.config.prediction_type == "v_prediction"
    assert not torch.equal(query_weights(config.bundle), query_weights(config.base))
    assert load_annotator(tuned).from_images(torch.randn(2, 3, 16, 16)).probs.shape == (2, 7)
    assert load_file(f"{config.bundle}/layouts/latents.safetensors")["latents"].shape == (3, 4, 4, 4)

    with pytest.raises(InputError, match="is a finished model: fine-tune it with base="):
        train_part(replace(config, base=None, bundle=str(config.base)), "diffusion")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_base_is_fine_tuned_by_lora(tmp_path):
    config = fine_tuning(tmp_path, lora_rank=2)
    train_part(config, "diffusion")
    assert not torch.equal(query_weights(config.bundle), query_weights(config.base))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rare_repeats": 0}, "rare_repeats=0: every face is shown once at least"),
        ({"clear_share": 1.5}, "clear_share=1.5 is not in"),
    ],
)
def test_faces_cannot_be_shown_in_impossible_ways(tmp_path, changes, message):
    config = tiny_training(write_fetext(tmp_path / "fetext"), tmp_path, **changes)
    with pytest.raises(InputError, match=message):
        train_part(config, "diffusion")


def test_input_that_is_no_fetext_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not a FEText folder"):
        train_part(tiny_training(str(tmp_path / "nothing"), tmp_path), "autoencoder")
