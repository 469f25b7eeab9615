"""The weak U-Net: a bad version of the model, for autoguidance (Karras et al. 2024).

It reads what the model reads, is small and learns little, so that it errs where the model errs, only more.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from synfer_ray.training.conditions import ConditionedObjective
from synfer_ray.training.diffusion import denoising_loss
from synfer_ray.training.loop import Batch
from synfer_ray.training.saving import save_half

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel


class WeakUNetObjective(ConditionedObjective):
    """Denoising loss of `weak_unet` under text and action units, whose encoders stay as they are.

    Args:
        conditions: what `ConditionedObjective` takes.
    """

    def __init__(self, weak_unet: "UNet2DConditionModel", *conditions):
        super().__init__(*conditions)
        self.weak_unet = weak_unet
        self.text_encoder.requires_grad_(False)
        self.adapter.requires_grad_(False)

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Eq. 3, in the scheduler's own prediction type."""
        tokens = self.conditions(batch, generator)
        return denoising_loss(self.weak_unet, self.scheduler, batch["latents"], tokens, generator), {}

    def export(self, folder: Path) -> None:
        """Writes the network in diffusers' layout, in half precision."""
        save_half(self.weak_unet, folder)
