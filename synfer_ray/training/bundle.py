"""From a FEText folder to a finished bundle, part by part; a part that is in place is not trained again."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np

from synfer_ray.config import SamplingConfig, TrainingConfig
from synfer_ray.errors import InputError, choose
from synfer_ray.runtime import ray_session
from synfer_ray.training import parts

PARTS = {
    "autoencoder": parts.train_autoencoder,
    "diffusion": parts.train_diffusion,
    "au_adapter": parts.train_au_adapter,
    "preview": parts.train_preview,
    "feranno": parts.train_feranno,
    "experts": parts.train_experts,
    "au_labeler": parts.train_au_labeler,
}
LAYOUTS, LAYOUT_BATCH = 256, 32
BASE_FOLDERS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


def train_bundle(config: TrainingConfig) -> None:
    """Trains the missing parts in the order in which they depend on each other, then completes the bundle."""
    for name in PARTS:
        train_part(config, name)
    complete(config)
    print(f"bundle ready: {config.bundle}")


def train_part(config: TrainingConfig, name: str) -> None:
    """Trains one part of the bundle unless it is in place.

    Raises:
        InputError: unknown part, or `input` is not a FEText folder.
    """
    choose(name, PARTS, "part")
    if not (Path(config.input) / "data").is_dir():
        raise InputError(f"{config.input} is not a FEText folder; make one with `synfer fetext`")
    config = replace(config, bundle=str(Path(config.bundle).resolve()))  # workers run in another folder
    prepare(config)
    if is_trained(config, name):
        print(f"{name}: in place")
    else:
        print(f"{name}: training")
        with ray_session(training=True):
            PARTS[name](config)


def prepare(config: TrainingConfig) -> None:
    """Starts the bundle: a copy of the `base` model, or a tokenizer for new networks."""
    bundle = Path(config.bundle)
    if (bundle / "tokenizer").exists():
        return
    bundle.mkdir(parents=True, exist_ok=True)
    if config.base:
        from synfer_ray.diffusion.components import MODEL_AND_PARTS
        from synfer_ray.storage.hub import local_folder

        base = local_folder(config.base, MODEL_AND_PARTS)
        for folder in BASE_FOLDERS:
            shutil.copytree(base / folder, bundle / folder)
        return
    from synfer_ray.prompts.caption import vocabulary
    from synfer_ray.training.data import read_columns
    from synfer_ray.training.tokenizer import new_tokenizer

    captions = read_columns(config.input, ["caption"])["caption"].to_pylist()
    new_tokenizer([*captions, *vocabulary()], config.architecture.text_length).save_pretrained(
        bundle / "tokenizer"
    )


def is_trained(config: TrainingConfig, name: str) -> bool:
    """Whether a part is in place; a base model brings its autoencoder, its U-Net counts once fine-tuned."""
    bundle = Path(config.bundle)
    if name == "experts":
        return all((bundle / "experts" / expert).exists() for expert in config.experts)
    if name == "diffusion":
        record = bundle / "training.json"
        return record.exists() and "diffusion" in json.loads(record.read_text())
    return (bundle / {"autoencoder": "vae"}.get(name, name)).exists()


def complete(config: TrainingConfig) -> None:
    """Adds what makes the parts a pipeline: `model_index.json`, the layout pool and the model card."""
    from diffusers import StableDiffusionPipeline

    from synfer_ray.diffusion.components import load_components
    from synfer_ray.training.model_card import write_model_card

    components = load_components(config.bundle)
    pipeline = StableDiffusionPipeline(
        components.vae,
        components.text_encoder,
        components.tokenizer,
        components.unet,
        components.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_config(config.bundle)
    write_layouts(config)
    write_model_card(config)


def write_layouts(config: TrainingConfig) -> None:
    """Fills `layouts/` with latents of neutral synthetic faces, so that layouts carry no real identity."""
    import torch
    from safetensors.torch import save_file

    from synfer_ray.diffusion.components import encode_prompt, load_components
    from synfer_ray.diffusion.noise import initial_noise
    from synfer_ray.diffusion.sampling import denoise
    from synfer_ray.prompts.caption import write_caption
    from synfer_ray.taxonomy.au_priors import sample_action_units

    components = load_components(config.bundle)
    shape = components.latent_shape(config.architecture.image_size)
    empty_embeds = encode_prompt(components, [""] * LAYOUT_BATCH)
    latents = []
    for first in range(0, LAYOUTS, LAYOUT_BATCH):
        seeds = range(first, first + LAYOUT_BATCH)
        draws = [np.random.default_rng([config.diffusion.seed, seed]) for seed in seeds]
        captions = [write_caption("neutral", sample_action_units("neutral", rng), {}, rng) for rng in draws]
        samples = denoise(
            components,
            SamplingConfig(num_inference_steps=20, guidance_scale=3.0),
            initial_noise(seeds, shape),
            prompt_embeds=encode_prompt(components, captions),
            empty_embeds=empty_embeds,
        )
        latents.append(samples.latents)
    folder = Path(config.bundle) / "layouts"
    folder.mkdir(exist_ok=True)
    save_file({"latents": torch.cat(latents).half().contiguous()}, folder / "latents.safetensors")
