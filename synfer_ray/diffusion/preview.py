"""A tiny decoder: what a latent will look like, at a fraction of the autoencoder's cost."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from synfer_ray.diffusion.components import Components, load_part
from synfer_ray.errors import InputError
from synfer_ray.storage.weights import load_model


class PreviewDecoder(nn.Module):
    """Latents [B, C, h, w] as the U-Net sees them -> images [B, 3, h * factor, w * factor] in about [-1, 1].

    Semantic guidance looks through it. All convolutions run on the latent's grid; the last one writes each
    cell's block of pixels. It is trained to repeat the autoencoder's own decoder.

    Args:
        latent_channels: channels C of a latent.
        factor: pixels a latent cell spans along each side.
        width: channels in between.
    """

    def __init__(self, latent_channels: int, factor: int, width: int = 96):
        super().__init__()
        self.config: dict[str, Any] = {"latent_channels": latent_channels, "factor": factor, "width": width}
        self.factor = factor
        self.first = nn.Conv2d(latent_channels, width, 3, padding=1)
        self.middle = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(3))
        self.last = nn.Conv2d(width, 3 * factor**2, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """Decodes; differentiable, each row on its own."""
        states = self.first(latents)
        for convolution in self.middle:
            states = states + convolution(F.relu(states))
        return F.pixel_shuffle(self.last(F.relu(states)), self.factor)


def load_preview(folder: Path, components: Components) -> Callable[[Tensor], Tensor]:
    """Loads latents [B, C, h, w] -> images [B, 3, H, W]: our decoder, or a diffusers AutoencoderTiny (TAESD).

    Raises:
        InputError: the files are missing or damaged, or made for other latents.
    """
    config = folder / "config.json"
    try:
        is_tiny = json.loads(config.read_text()).get("_class_name") == "AutoencoderTiny"
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"missing or damaged model file: {config}: {error}") from error
    decoder: Any
    if is_tiny:
        from diffusers import AutoencoderTiny

        decoder = load_part(AutoencoderTiny, folder, components.dtype).to(components.device)
        channels = decoder.config.latent_channels
    else:
        decoder = load_model(PreviewDecoder, folder).to(components.device, components.dtype)
        decoder.requires_grad_(False)
        channels = decoder.config["latent_channels"]
    if channels != components.unet.config.in_channels:
        needed = components.unet.config.in_channels
        raise InputError(f"{folder} decodes latents of {channels} channels, not of {needed}")
    if not is_tiny:
        return decoder
    return lambda latents: decoder.decode(latents / decoder.config.scaling_factor).sample
