"""Levers that trade memory against time, by the names diffusers gives them."""

import torch

from synfer_ray.config import MemoryConfig
from synfer_ray.diffusion.components import Components


def apply_levers(components: Components, config: MemoryConfig) -> None:
    """Turns on what `config` asks for; attention is torch's `scaled_dot_product_attention` in any case.

    FERAnno's pass is never compiled: it reads what flows between the layers (`calibration.features`).
    """
    unet, vae = components.unet, components.vae
    if config.vae_slicing:
        vae.enable_slicing()
    if config.vae_tiling:
        vae.enable_tiling()
    if config.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
        vae.enable_gradient_checkpointing()
    if config.channels_last:
        unet.to(memory_format=torch.channels_last)
        vae.to(memory_format=torch.channels_last)
    if config.compile:
        unet.compile(dynamic=False)
