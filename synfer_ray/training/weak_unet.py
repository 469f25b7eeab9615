"""The weak U-Net: a bad version of the model, for autoguidance (Karras et al. 2024).

It is small, reads no condition and learns little, so that it errs where the model errs, only more.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from synfer_ray.training.diffusion import denoising_loss
from synfer_ray.training.loop import Batch, Objective
from synfer_ray.training.saving import save_half

if TYPE_CHECKING:
    from diffusers import DDIMScheduler, UNet2DModel


class WeakUNetObjective(Objective):
    """Denoising loss of `latents` [B,C,h,w], under no condition."""

    def __init__(self, weak_unet: "UNet2DModel", scheduler: "DDIMScheduler"):
        super().__init__()
        self.weak_unet, self.scheduler = weak_unet, scheduler

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Eq. 3 with the empty condition, in the scheduler's own prediction type."""
        return denoising_loss(self.weak_unet, self.scheduler, batch["latents"], None, generator), {}

    def export(self, folder: Path) -> None:
        """Writes the network in diffusers' layout, in half precision."""
        save_half(self.weak_unet, folder)
