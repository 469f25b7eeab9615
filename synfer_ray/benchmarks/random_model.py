"""Stable Diffusion 1.5 at full size with random weights: what it costs, without what it knows."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from synfer_ray.calibration.features import extract_features
from synfer_ray.calibration.feranno import FERAnno, neutral_context, prompt_tokens
from synfer_ray.calibration.networks import FERClassifier
from synfer_ray.diffusion.au_adapter import AUAdapter
from synfer_ray.diffusion.components import Components, as_pipeline
from synfer_ray.prompts.caption import vocabulary
from synfer_ray.prompts.lint import NEUTRAL_PROMPT
from synfer_ray.storage.bundle import FERANNO, PREVIEW
from synfer_ray.storage.weights import save_model
from synfer_ray.training.tokenizer import new_tokenizer

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

UNET = {"sample_size": 64, "cross_attention_dim": 768}
"""All else of the published configuration is the default of UNet2DConditionModel: 859.5 M parameters."""
VAE = {
    "block_out_channels": (128, 256, 512, 512),
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "layers_per_block": 2,
    "latent_channels": 4,
    "sample_size": 512,
}
TEXT = {
    "vocab_size": 49408,
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 77,
}
SCHEDULE = {
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "clip_sample": False,
    "set_alpha_to_one": False,
    "steps_offset": 1,
}
EXPERTS = {"guide": "plain", "residual": "residual", "separable": "separable"}


def random_components(dtype: torch.dtype = torch.bfloat16) -> Components:
    """Builds the model with an AU adapter attached, on torch's default device, frozen.

    On the device `meta` it takes no memory, and computes nothing but shapes.
    """
    from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    usual = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        unet, vae = UNet2DConditionModel(**UNET), AutoencoderKL(**VAE)
        text_encoder = CLIPTextModel(CLIPTextConfig(**TEXT))
        adapter = AUAdapter.for_unet(unet)
    finally:
        torch.set_default_dtype(usual)
    for model in (unet, vae, text_encoder, adapter):
        model.requires_grad_(False).eval()
    adapter.attach(unet)
    return Components(unet, vae, text_encoder, clip_sized_tokenizer(), DDIMScheduler(**SCHEDULE), adapter, "")


def write_random_bundle(folder: Path, image_size: int) -> Path:
    """Writes the model as a bundle of 2 GB, with FERAnno for images of this size, TAESD and three experts."""
    from diffusers import AutoencoderTiny

    torch.manual_seed(0)
    components = random_components()
    as_pipeline(components).save_pretrained(folder)
    AutoencoderTiny().save_pretrained(folder / PREVIEW)
    assert components.adapter
    save_model(components.adapter, folder / "au_adapter", half=True)
    save_model(new_feranno(components, image_size), folder / FERANNO)
    for name, architecture in EXPERTS.items():
        save_model(FERClassifier(architecture), folder / "experts" / name)
    return folder


@torch.no_grad()
def new_feranno(components: Components, image_size: int) -> FERAnno:
    """Returns an untrained FERAnno head for images of this size."""
    latents = torch.zeros(1, *components.latent_shape(image_size), dtype=components.dtype)
    tokens = prompt_tokens(components, NEUTRAL_PROMPT)
    context = neutral_context(components)
    return FERAnno.for_features(extract_features(components.unet, latents, 1, context, tokens))


def clip_sized_tokenizer() -> "CLIPTokenizer":
    """Returns a tokenizer with as many tokens as CLIP's: those of the captions, and others of no use."""
    from transformers import CLIPTokenizer

    learnt = new_tokenizer(list(vocabulary()), TEXT["max_position_embeddings"])
    merges = json.loads(learnt.backend_tokenizer.to_str())["model"]["merges"]
    tokens = learnt.get_vocab()
    tokens |= {f"<unused{number}>": number for number in range(len(tokens), TEXT["vocab_size"])}
    return CLIPTokenizer(
        vocab=tokens, merges=[tuple(merge) for merge in merges], model_max_length=learnt.model_max_length
    )
