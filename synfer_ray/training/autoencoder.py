"""The autoencoder: faces to latents and back (AutoencoderKL with a pixel, an edge and a small KL loss)."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from synfer_ray.training.augment import from_uint8, random_affine, random_flip
from synfer_ray.training.loop import Arrays, Batch, Objective

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

EDGE_WEIGHT = 2.0
KL_WEIGHT = 1e-4


class AutoencoderObjective(Objective):
    """Reconstruction of the `image` column (uint8 [B,H,W,3])."""

    def __init__(self, vae: "AutoencoderKL"):
        super().__init__()
        self.vae = vae

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """L1 on pixels and on their differences, plus the KL term that keeps latents near a unit normal."""
        images = from_uint8(batch["image"])
        if self.training:
            images = random_affine(random_flip(images, generator)[0], generator)
        posterior = self.vae.encode(images).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator, device=images.device)
        restored = self.vae.decode(posterior.mean + posterior.std * noise).sample
        pixel = F.l1_loss(restored, images)
        edge = sum(F.l1_loss(restored.diff(dim=axis), images.diff(dim=axis)) for axis in (-1, -2))
        divergence = posterior.kl().mean() / posterior.mean[0].numel()
        loss = pixel + EDGE_WEIGHT * edge + KL_WEIGHT * divergence
        return loss, {"pixel_l1": pixel.item(), "kl": divergence.item()}

    def final_metrics(self, held_out: Arrays, device: torch.device) -> dict[str, float]:
        """The factor that brings the latents to unit variance (Rombach et al. 2022, Sec. G)."""
        images = from_uint8(torch.from_numpy(held_out["image"][:256]).to(device))
        return {"scaling_factor": 1.0 / self.vae.encode(images).latent_dist.mean.std().item()}

    def export(self, folder: Path) -> None:
        """Writes `vae/` of a diffusers pipeline, in half precision."""
        self.vae.half().save_pretrained(folder)
