import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, PNDMScheduler, StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from synfer_ray.diffusion.attention import DecoupledAttnProcessor, cross_attention_blocks
from synfer_ray.diffusion.components import (
    decode_latents,
    encode_image,
    encode_prompt,
    load_components,
    word_mask,
)
from synfer_ray.errors import InputError
from synfer_ray.storage.bundle import find_bundle
from synfer_ray.storage.weights import save_model
from tests.tiny import save_components, tiny_adapter, tiny_components, tiny_unet, tiny_weak_unet

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return save_components(tiny_components(), tmp_path_factory.mktemp("bundle") / "model")


@pytest.fixture
def damaged(bundle, tmp_path) -> Path:
    """A copy of the bundle for a test to break."""
    return Path(shutil.copytree(bundle, tmp_path / "damaged"))


def rewrite(path: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


def test_a_saved_bundle_comes_back_frozen_with_its_adapter_attached(bundle):
    saved, loaded = tiny_components(), load_components(bundle)
    for part in ("unet", "vae", "text_encoder", "adapter"):
        expected, found = getattr(saved, part), getattr(loaded, part)
        assert not found.training
        assert not any(parameter.requires_grad for parameter in found.parameters())
        torch.testing.assert_close(found.state_dict(), expected.state_dict(), rtol=0, atol=0)
    assert isinstance(loaded.scheduler, DDIMScheduler)
    for _, attention in cross_attention_blocks(loaded.unet):
        assert isinstance(attention.processor, DecoupledAttnProcessor)
        assert attention.processor.adapter is loaded.adapter


def test_a_model_without_adapter_reads_the_text_alone(damaged):
    shutil.rmtree(damaged / "au_adapter")
    components = load_components(damaged)
    text = encode_prompt(components, ["a happy face"])
    assert components.adapter is None
    assert components.context(text) is text
    assert components.unet(torch.randn(1, 4, 8, 8), 1, text).sample.isfinite().all()


def test_the_context_is_text_then_action_units_null_if_none_are_given():
    components = tiny_components()
    text, tokens = torch.randn(2, 12, 16), torch.randn(2, 4, 16)
    assert torch.equal(components.context(text, tokens), torch.cat([text, tokens], dim=1))
    assert torch.equal(components.context(text)[:, 12:], components.adapter.null_tokens(2))


def test_other_number_types(bundle):
    components = load_components(bundle, dtype=torch.bfloat16)
    text = encode_prompt(components, ["a happy face"])
    context = components.context(text, components.adapter.encode(torch.rand(1, 41)))
    latents = torch.randn(1, *components.latent_shape(32), dtype=torch.bfloat16)
    assert components.unet(latents, 1, context).sample.dtype == torch.bfloat16
    assert decode_latents(components, latents).dtype == torch.bfloat16


@pytest.mark.parametrize("scheduler", [PNDMScheduler, EulerDiscreteScheduler])
def test_any_sampler_becomes_ddim_with_its_noise_schedule(damaged, scheduler):
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    scheduler(**betas, prediction_type="v_prediction").save_pretrained(damaged / "scheduler")
    loaded = load_components(damaged).scheduler
    assert isinstance(loaded, DDIMScheduler)
    assert (loaded.config.prediction_type, loaded.config.clip_sample) == ("v_prediction", False)
    torch.testing.assert_close(loaded.alphas_cumprod, DDIMScheduler(**betas).alphas_cumprod)


def test_reads_the_files_of_the_first_stable_diffusion_releases(damaged):
    """Prefixed text encoder keys, a position buffer, old attention names, vocab.json and merges.txt."""
    expected = load_components(damaged)

    def old_text_encoder(weights):
        old = {f"text_model.{key.removeprefix('text_model.')}": value for key, value in weights.items()}
        return old | {"text_model.embeddings.position_ids": torch.arange(12)[None]}

    def old_autoencoder(weights):
        names = {"to_q.": "query.", "to_k.": "key.", "to_v.": "value.", "to_out.0.": "proj_attn."}
        old = {}
        for key, value in weights.items():
            for new_name, old_name in names.items():
                key = key.replace(new_name, old_name)
            old[key] = value
        assert old.keys() != weights.keys()
        return old

    rewrite(damaged / "text_encoder/model.safetensors", old_text_encoder)
    rewrite(damaged / "vae/diffusion_pytorch_model.safetensors", old_autoencoder)
    tokenizer = json.loads((damaged / "tokenizer/tokenizer.json").read_text())["model"]
    (damaged / "tokenizer/tokenizer.json").unlink()
    (damaged / "tokenizer/vocab.json").write_text(json.dumps(tokenizer["vocab"]))
    merges = ["#version: 0.2", *(" ".join(merge) for merge in tokenizer["merges"])]
    (damaged / "tokenizer/merges.txt").write_text("\n".join(merges))

    loaded = load_components(damaged)

    prompts, latents = ["a photo of a happy face", "sad zq"], torch.randn(1, 4, 8, 8)
    torch.testing.assert_close(encode_prompt(loaded, prompts), encode_prompt(expected, prompts))
    torch.testing.assert_close(decode_latents(loaded, latents), decode_latents(expected, latents))


@pytest.mark.parametrize(
    "name",
    [
        "unet/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        "text_encoder/model.safetensors",
        "tokenizer/tokenizer_config.json",
        "scheduler/scheduler_config.json",
        "au_adapter/model.safetensors",
    ],
)
def test_a_missing_or_damaged_file_is_named(damaged, name):
    (damaged / name).write_text("{broken")
    with pytest.raises(InputError, match=name.split("/")[0]):
        load_components(damaged)
    (damaged / name).unlink()
    with pytest.raises(InputError, match=f"missing model file.*{name}"):
        load_components(damaged)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("unet", {"block_out_channels": 3}),
        ("unet", {"norm_num_groups": 0}),
        ("vae", {"latent_channels": None}),
        ("text_encoder", {"hidden_size": "a"}),
        ("au_adapter", {"num_tokens": -1}),
    ],
)
def test_a_senseless_configuration_is_refused(damaged, name, change):
    config = damaged / name / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    with pytest.raises(InputError, match=name):
        load_components(damaged)


def test_a_tokenizer_without_vocabulary_is_refused(damaged):
    (damaged / "tokenizer/tokenizer.json").unlink()
    with pytest.raises(InputError, match="tokenizer"):
        load_components(damaged)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"conv_in.bias": None}, "missing keys: conv_in.bias"),
        ({"extra": torch.ones(1)}, "unexpected keys: extra"),
        ({"conv_in.bias": torch.full((8,), torch.nan)}, "not finite: conv_in.bias"),
        ({"conv_in.bias": torch.ones(3)}, "conv_in.bias"),
    ],
)
def test_weights_that_do_not_fit_are_named(damaged, change, message):
    def changed(weights):
        return {key: value for key, value in (weights | change).items() if value is not None}

    rewrite(damaged / "unet/diffusion_pytorch_model.safetensors", changed)
    with pytest.raises(InputError, match=message):
        load_components(damaged)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"in_channels": 9}, "latents: 4 instead of 9"),
        ({"cross_attention_dim": 8}, "text embedding: 16 instead of 8"),
        ({"layers_per_block": 1}, "AU adapter does not fit"),
        (
            {
                "down_block_types": ("DownBlock2D",) * 4,
                "up_block_types": ("UpBlock2D",) * 4,
                "mid_block_type": "UNetMidBlock2D",
            },
            "no cross-attention",
        ),
    ],
)
def test_a_unet_that_does_not_belong_to_the_other_parts_is_refused(damaged, settings, message):
    tiny_unet(**settings).save_pretrained(damaged / "unet")
    with pytest.raises(InputError, match=message):
        load_components(damaged)


def test_a_weak_unet_comes_with_the_model_if_it_fits(damaged):
    assert load_components(damaged).weak_unet is None
    saved = tiny_weak_unet()
    saved.save_pretrained(damaged / "weak_unet")
    weak_unet = load_components(damaged).weak_unet
    assert not any(parameter.requires_grad for parameter in weak_unet.parameters())
    torch.testing.assert_close(weak_unet.state_dict(), saved.state_dict(), rtol=0, atol=0)
    tiny_weak_unet(latent_channels=3).save_pretrained(damaged / "weak_unet")
    with pytest.raises(InputError, match="channels that weak_unet reads: 3 instead of 4"):
        load_components(damaged)
    tiny_weak_unet(width=8).save_pretrained(damaged / "weak_unet")
    with pytest.raises(InputError, match="width of what weak_unet attends to: 8 instead of 16"):
        load_components(damaged)


def test_an_unknown_prediction_type_and_an_unknown_folder_are_refused(damaged):
    DDIMScheduler(prediction_type="sample").save_pretrained(damaged / "scheduler")
    with pytest.raises(InputError, match=r"prediction type 'sample'.*epsilon, v_prediction"):
        load_components(damaged)
    with pytest.raises(InputError, match="no such/folder"):
        load_components("no such/folder")


def test_prompts_are_encoded_as_the_pipeline_does(bundle):
    components = load_components(bundle)
    prompts = ["a photo of a happy face", "of " * 40, ""]
    pipeline = StableDiffusionPipeline.from_pretrained(bundle)
    expected, _ = pipeline.encode_prompt(prompts, "cpu", 1, do_classifier_free_guidance=False)
    torch.testing.assert_close(encode_prompt(components, prompts), expected)


def test_the_embedded_model_runs_in_diffusers_as_it_is():
    pipeline = StableDiffusionPipeline.from_pretrained(find_bundle("fer64"))
    image = pipeline("a photo of a happy face", num_inference_steps=1, output_type="np").images[0]
    assert image.shape == (64, 64, 3)


def test_the_word_mask_covers_the_words_alone():
    mask = word_mask(tiny_components(), ["a happy face", "", "of " * 40])
    assert mask.int().tolist() == [[0, 1, 1, 1] + [0] * 8, [0] * 12, [0] + [1] * 10 + [0]]


def test_latents_are_scaled_by_the_autoencoder_s_factor():
    components = tiny_components()
    images = torch.randn(2, 3, 32, 32)
    latents = encode_image(components, images)
    scale = components.vae.config.scaling_factor
    assert latents.shape == (2, *components.latent_shape(32))
    torch.testing.assert_close(latents / scale, components.vae.encode(images).latent_dist.mean)
    expected = components.vae.decode(latents / scale).sample
    torch.testing.assert_close(decode_latents(components, latents), expected)


def test_decoding_is_differentiable():
    components = tiny_components()
    latents = torch.randn(1, 4, 8, 8, requires_grad=True)
    decode_latents(components, latents).sum().backward()
    assert latents.grad.abs().max() > 0


def test_an_image_size_the_autoencoder_cannot_reduce_is_refused():
    with pytest.raises(InputError, match="image size 30"):
        tiny_components().latent_shape(30)


def test_an_adapter_from_another_model_is_refused(damaged):
    save_model(tiny_adapter(tiny_unet(block_out_channels=(8, 8, 8, 16))), damaged / "au_adapter")
    with pytest.raises(InputError, match="block_channels"):
        load_components(damaged)


def test_the_embedded_model_has_learnt_the_words_of_its_captions():
    parts = load_components(find_bundle("fer64"))
    lengths = parts.text_encoder.get_input_embeddings().weight.float().norm(dim=1)
    numbers = parts.tokenizer.get_vocab()
    letters = [numbers[token] for token in numbers if len(token) == 1]  # no caption spells a word
    words = ("a", "photo", "of", "person", "face", "with", ",", "-", "happy", "sad", "brows", "raised")
    assert lengths[[numbers[f"{word}</w>"] for word in words]].min() > 1.5 * lengths[letters].max()
