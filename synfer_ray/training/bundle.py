"""From a FEText folder to a finished bundle, part by part; a part that is in place is not trained again."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from synfer_ray.config import SamplingConfig, TrainingConfig
from synfer_ray.errors import InputError, choose
from synfer_ray.runtime import ray_session
from synfer_ray.storage.bundle import WEAK_UNET, WHOLENESS
from synfer_ray.storage.hub import MODEL_FILES, model_folder
from synfer_ray.taxonomy.expressions import parse_expression
from synfer_ray.training import parts
from synfer_ray.training.au_prior import train_au_prior
from synfer_ray.training.data import training_image_size

if TYPE_CHECKING:
    from synfer_ray.diffusion.components import Components

PARTS = {
    "autoencoder": parts.train_autoencoder,
    "experts": parts.train_experts,
    "diffusion": parts.train_diffusion,
    "au_adapter": parts.train_au_adapter,
    "joint": parts.train_joint,
    WEAK_UNET: parts.train_weak_unet,
    "decoder": parts.train_decoder,
    "preview": parts.train_preview,
    "feranno": parts.train_feranno,
    "au_labeler": parts.train_au_labeler,
    WHOLENESS: parts.train_wholeness,
    "preference": parts.train_preference,
}
LAYOUT_BATCH = 32


def train_bundle(config: TrainingConfig) -> None:
    """Trains the missing parts in the order in which they depend on each other, then completes the bundle.

    What tells whole faces from broken ones, and with it `preference`, is left out where there are no ratings.

    Raises:
        InputError: `rated` and `ratings` do not come together, or `au_prior_typical` names no expression.
    """
    for name in config.au_prior_typical:
        parse_expression(name)  # it is needed at the end alone
    if bool(config.rated) != bool(config.ratings):
        raise InputError(f"rated={config.rated} ratings={config.ratings}: one needs the other")
    for name in PARTS:
        if name not in (WHOLENESS, "preference") or config.ratings:
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
    """Starts the bundle: a copy of the `base` model, or a tokenizer for new networks.

    Raises:
        InputError: the base is missing, lacks a file, or is a model of another family.
    """
    bundle = Path(config.bundle)
    if (bundle / "tokenizer").exists():
        return
    bundle.mkdir(parents=True, exist_ok=True)
    if config.base:
        base = model_folder(config.base)
        if missing := [name for name in MODEL_FILES if not (base / name).is_file()]:
            raise InputError(f"missing model file: {base / missing[0]}")
        for name in MODEL_FILES:  # other precisions and pickles stay behind
            if not name.startswith("tokenizer"):
                (bundle / name).parent.mkdir(exist_ok=True)
                shutil.copyfile(base / name, bundle / name)
        shutil.copytree(base / "tokenizer", bundle / "tokenizer")
        return
    from synfer_ray.prompts.caption import vocabulary
    from synfer_ray.training.data import read_columns
    from synfer_ray.training.tokenizer import new_tokenizer

    captions = read_columns(config.input, ["caption"])["caption"].to_pylist()
    new_tokenizer([*captions, *vocabulary()], config.architecture.text_length).save_pretrained(
        bundle / "tokenizer"
    )


def is_trained(config: TrainingConfig, name: str) -> bool:
    """Whether a part is in place; a base model brings its autoencoder, its U-Net counts once fine-tuned.

    A part that is to learn on for no steps is left as it is, and a weak U-Net is left out.
    """
    bundle = Path(config.bundle)
    if name == "experts":
        return all((bundle / "experts" / expert).exists() for expert in config.experts)
    if name == "decoder" and (config.base or not config.decoder.steps):
        return True
    if name in ("joint", WEAK_UNET, "preference") and not getattr(config, name).steps:
        return True
    if name in ("decoder", "diffusion", "joint", "preference"):
        record = bundle / "training.json"
        return record.exists() and name in json.loads(record.read_text())
    return (bundle / {"autoencoder": "vae"}.get(name, name)).exists()


def complete(config: TrainingConfig) -> None:
    """Adds what makes the parts a pipeline: `model_index.json`, layouts, the AU prior and the model card."""
    import torch

    from synfer_ray.diffusion.components import as_pipeline, load_components
    from synfer_ray.training.model_card import write_model_card

    components = load_components(config.bundle, "cuda" if torch.cuda.is_available() else "cpu")
    as_pipeline(components).save_config(config.bundle)
    if config.layouts:
        write_layouts(config, components)
    train_au_prior(config)
    write_model_card(config)


def write_layouts(config: TrainingConfig, components: "Components") -> None:
    """Fills `layouts/` with latents of neutral synthetic faces, so that layouts carry no real identity."""
    import torch
    from safetensors.torch import save_file

    from synfer_ray.diffusion.components import encode_prompt
    from synfer_ray.diffusion.noise import next_noise, row_generator
    from synfer_ray.diffusion.sampling import denoise
    from synfer_ray.prompts import FRONTAL, write_caption
    from synfer_ray.taxonomy.au_priors import sample_action_units

    shape = components.latent_shape(training_image_size(config))
    empty_embeds = encode_prompt(components, [""] * LAYOUT_BATCH)
    latents = []
    for first in range(0, config.layouts, LAYOUT_BATCH):
        seeds = range(first, first + LAYOUT_BATCH)
        draws = [np.random.default_rng([config.diffusion.seed, seed]) for seed in seeds]
        captions = [
            write_caption("neutral", sample_action_units("neutral", rng), FRONTAL, rng) for rng in draws
        ]
        generators = [row_generator(seed) for seed in seeds]
        samples = denoise(
            components,
            SamplingConfig(),
            next_noise(generators, shape),
            generators=generators,
            prompt_embeds=encode_prompt(components, captions),
            empty_embeds=empty_embeds,
        )
        latents.append(samples.latents.cpu())
    folder = Path(config.bundle) / "layouts"
    folder.mkdir(exist_ok=True)
    save_file(
        {"latents": torch.cat(latents)[: config.layouts].half().contiguous()}, folder / "latents.safetensors"
    )
