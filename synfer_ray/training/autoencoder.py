"""The autoencoder: faces to latents and back (AutoencoderKL with a pixel, an edge and a small KL loss)."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from synfer_ray.training.augment import from_uint8, random_affine, random_flip
from synfer_ray.training.loop import Arrays, Batch, Objective
from synfer_ray.training.saving import save_half

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

EDGE_WEIGHT = 2.0
KL_WEIGHT = 1e-4


class AutoencoderObjective(Objective):
    """Reconstruction of the `image` column (uint8 [B,H,W,3])."""

    def __init__(self, vae: "AutoencoderKL"):
        super().__init__()
        self.vae = vae
        self.register_buffer("latent_mean", torch.zeros(vae.config.latent_channels))
        self.register_buffer("latent_std", torch.ones(vae.config.latent_channels))

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """L1 on pixels and on their differences, plus the KL term that keeps latents near a unit normal."""
        images = from_uint8(batch["image"])
        if self.training:
            images = random_affine(random_flip(images, generator)[0], generator)
        posterior = self.vae.encode(images).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator, device=images.device)
        restored = self.vae.decode(posterior.mean + posterior.std * noise).sample
        pixel, edge = reconstruction_loss(restored, images)
        divergence = posterior.kl().mean() / posterior.mean[0].numel()
        loss = pixel + edge + KL_WEIGHT * divergence
        return loss, {"pixel_l1": pixel.item(), "kl": divergence.item()}

    def final_metrics(self, held_out: Arrays, device: torch.device) -> dict[str, float]:
        """Measures the latents' channels, for `export` to normalise them."""
        images = from_uint8(torch.from_numpy(held_out["image"][:512]).to(device))
        latents = self.vae.encode(images).latent_dist.mean
        self.latent_mean, self.latent_std = latents.mean((0, 2, 3)), latents.std((0, 2, 3))
        smallest, largest = self.latent_std.aminmax()
        return {"latent_std_min": smallest.item(), "latent_std_max": largest.item()}

    def export(self, folder: Path) -> None:
        """Writes `vae/` of a diffusers pipeline, in half precision, its latents normalised."""
        normalize_latents(self.vae, self.latent_mean, self.latent_std)
        self.vae.register_to_config(scaling_factor=1.0)
        save_half(self.vae, folder)


def reconstruction_loss(restored: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """L1 on the pixels of images [B,3,H,W], and weighted L1 on the differences between neighbours."""
    edges = [F.l1_loss(restored.diff(dim=axis), images.diff(dim=axis)) for axis in (-1, -2)]
    return F.l1_loss(restored, images), EDGE_WEIGHT * torch.stack(edges).sum()


@torch.no_grad()
def normalize_latents(vae: "AutoencoderKL", mean: Tensor, std: Tensor) -> None:
    """Moves every latent channel to zero mean and unit variance; reconstructions stay the same.

    One scaling factor for all (Rombach et al. 2022, Sec. G) would let the strongest channel rule the loss.
    The change is folded into the 1x1 convolutions around the latent.

    Args:
        mean: of each channel of the posterior's mean, [C].
        std: of each channel, [C].
    """
    channels = len(mean)
    to_latent, from_latent = vae.quant_conv, vae.post_quant_conv
    from_latent.bias += from_latent.weight[:, :, 0, 0] @ mean
    from_latent.weight *= std[None, :, None, None]
    to_latent.weight[:channels] /= std[:, None, None, None]
    to_latent.bias[:channels] = (to_latent.bias[:channels] - mean) / std
    to_latent.bias[channels:] -= 2 * std.log()
