"""Real diffusers and transformers models of Stable Diffusion's shape, small enough for a test."""

from pathlib import Path
from typing import TypeVar

import torch
from diffusers import (
    AutoencoderKL,
    AutoencoderTiny,
    DDIMScheduler,
    UNet2DConditionModel,
)
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from synfer_ray.diffusion.attention import install_processors
from synfer_ray.diffusion.au_adapter import AUAdapter
from synfer_ray.diffusion.components import Components, as_pipeline
from synfer_ray.storage.weights import save_model

Module = TypeVar("Module", bound=nn.Module)
WORDS = ("a", "photo", "of", "face", "happy", "sad", "angry", "person", "with", "raised", "brows")


def tiny_unet(seed: int = 0, **changes) -> UNet2DConditionModel:
    """Four resolutions and 16 cross-attention blocks, as in Stable Diffusion 1.x."""
    torch.manual_seed(seed)
    settings = {
        "sample_size": 8,
        "block_out_channels": (8, 8, 16, 16),
        "cross_attention_dim": 16,
        "attention_head_dim": 2,
        "norm_num_groups": 4,
    }
    return _frozen(UNet2DConditionModel(**settings | changes))


def tiny_weak_unet(latent_channels: int = 4, width: int = 16) -> UNet2DConditionModel:
    """Two resolutions."""
    return tiny_unet(
        seed=9,
        in_channels=latent_channels,
        out_channels=latent_channels,
        block_out_channels=(8, 8),
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        layers_per_block=1,
        cross_attention_dim=width,
    )


def tiny_vae(seed: int = 0) -> AutoencoderKL:
    """Reduces the side four times."""
    torch.manual_seed(seed)
    return _frozen(
        AutoencoderKL(
            block_out_channels=(4, 4, 4),
            down_block_types=("DownEncoderBlock2D",) * 3,
            up_block_types=("UpDecoderBlock2D",) * 3,
            latent_channels=4,
            norm_num_groups=2,
            sample_size=32,
        )
    )


def tiny_taesd(latent_channels: int = 4, levels: int = 3) -> AutoencoderTiny:
    """TAESD's layers."""
    torch.manual_seed(0)
    channels, blocks = (8,) * levels, (1,) * levels
    return _frozen(
        AutoencoderTiny(
            encoder_block_out_channels=channels,
            decoder_block_out_channels=channels,
            num_encoder_blocks=blocks,
            num_decoder_blocks=blocks,
            latent_channels=latent_channels,
        )
    )


def tiny_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer that knows `WORDS` and single letters, 12 tokens a prompt."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    merges, pieces = [], []
    for word in WORDS:
        left, *rest = [*word[:-1], word[-1] + "</w>"]
        for right in rest:
            merges.append((left, right))
            pieces.append(left := left + right)
    tokens = [*letters, *(f"{letter}</w>" for letter in letters), *pieces, "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    return CLIPTokenizer(vocab=vocabulary, merges=list(dict.fromkeys(merges)), model_max_length=12)


def tiny_text_encoder(tokenizer: CLIPTokenizer, width: int = 16, seed: int = 0) -> CLIPTextModel:
    torch.manual_seed(seed)
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return _frozen(CLIPTextModel(config))


def tiny_scheduler(prediction_type: str = "epsilon") -> DDIMScheduler:
    """The noise schedule of Stable Diffusion."""
    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction_type,
    )


def tiny_adapter(unet: UNet2DConditionModel, num_tokens: int = 4, seed: int = 0) -> AUAdapter:
    """An adapter with values that are not zero, as after training."""
    torch.manual_seed(seed)
    adapter = AUAdapter.for_unet(unet, num_tokens=num_tokens, hidden_dim=16)
    for layer in adapter.layers:
        torch.nn.init.normal_(layer.to_v.weight, std=0.3)
    return _frozen(adapter)


def tiny_components(adapter: bool = True, prediction_type: str = "epsilon", seed: int = 0) -> Components:
    """Untrained components; the AU adapter is attached unless `adapter` is False."""
    unet = tiny_unet(seed)
    tokenizer = tiny_tokenizer()
    au_adapter = tiny_adapter(unet, seed=seed) if adapter else None
    if au_adapter:
        au_adapter.attach(unet)
    else:
        install_processors(unet)
    return Components(
        unet=unet,
        vae=tiny_vae(seed),
        text_encoder=tiny_text_encoder(tokenizer, seed=seed),
        tokenizer=tokenizer,
        scheduler=tiny_scheduler(prediction_type),
        adapter=au_adapter,
        folder="tiny",
    )


def save_components(components: Components, folder: Path) -> Path:
    """Writes a bundle: what StableDiffusionPipeline saves, and `au_adapter/`."""
    as_pipeline(components).save_pretrained(folder)
    if components.adapter:
        save_model(components.adapter, folder / "au_adapter")
    return folder


def _frozen(model: Module) -> Module:
    return model.requires_grad_(False).eval()
