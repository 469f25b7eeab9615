"""The AU adapter's training: the same denoising loss with the diffusion model frozen (paper 4.2.2, Eq. 3)."""

from pathlib import Path

import torch
from torch import Tensor

from synfer_ray.diffusion.au_adapter import AUAdapter
from synfer_ray.storage.weights import save_model
from synfer_ray.training.conditions import ConditionedObjective
from synfer_ray.training.diffusion import denoising_loss
from synfer_ray.training.loop import Batch


class AUAdapterObjective(ConditionedObjective):
    """Denoising loss under text and action units; only the adapter learns."""

    def __init__(self, unet, text_encoder, scheduler, empty_ids: Tensor, adapter: AUAdapter):
        super().__init__(text_encoder, adapter, scheduler, empty_ids)
        self.unet = unet
        self.unet.requires_grad_(False)
        self.text_encoder.requires_grad_(False)
        adapter.attach(unet)

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Eq. 3 with the AU tokens after the text tokens."""
        tokens = self.conditions(batch, generator)
        return denoising_loss(self.unet, self.scheduler, batch["latents"], tokens, generator), {}

    def export(self, folder: Path) -> None:
        """Writes the adapter's config.json and model.safetensors, in half precision."""
        save_model(self.adapter, folder, half=True)
