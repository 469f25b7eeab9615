"""The preview decoder's training: it learns to repeat the autoencoder's decoder on the latents of faces."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from synfer_ray.diffusion.preview import PreviewDecoder
from synfer_ray.storage.weights import save_model
from synfer_ray.training.loop import Batch, Objective

if TYPE_CHECKING:
    from diffusers import AutoencoderKL


class PreviewObjective(Objective):
    """Mean absolute difference to the autoencoder's image of `latents` [B,C,h,w]."""

    def __init__(self, vae: "AutoencoderKL"):
        super().__init__()
        self.vae = vae.requires_grad_(False)
        factor = 2 ** (len(vae.config.block_out_channels) - 1)
        self.preview = PreviewDecoder(vae.config.latent_channels, factor)

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """L1 to the decoded image."""
        latents = batch["latents"]
        with torch.no_grad():
            images = self.vae.decode(latents / self.vae.config.scaling_factor).sample
        return F.l1_loss(self.preview(latents), images), {}

    def export(self, folder: Path) -> None:
        """Writes the decoder's config.json and model.safetensors, in half precision."""
        save_model(self.preview, folder, half=True)
