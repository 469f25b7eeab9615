"""The diffusion model and its AU adapter learn on together, after each has learnt alone."""

from pathlib import Path

import torch
from torch import Tensor

from synfer_ray.training.au_adapter import AUAdapterObjective
from synfer_ray.training.loop import Batch
from synfer_ray.training.saving import save_half

WITHOUT_ADAPTER = 0.25
"""Share of batches that the diffusion model sees without its adapter, so that text alone goes on working."""


class JointObjective(AUAdapterObjective):
    """Eq. 3 as for the adapter, with the U-Net and the text encoder learning too.

    A small diffusion model gains more from this than from an adapter beside frozen weights; a published one
    would forget what it knows.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.unet.requires_grad_(True)
        self.text_encoder.requires_grad_(True)
        self.adapter.requires_grad_(True)  # a loaded one is frozen

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Eq. 3; in some of the training's batches without the AU branch."""
        device = batch["latents"].device
        is_off = self.training and torch.rand((), generator=generator, device=device) < WITHOUT_ADAPTER
        self.adapter.scale = 0.0 if is_off else 1.0
        return super().forward(batch, generator)

    def export(self, folder: Path) -> None:
        """Writes `unet/`, `text_encoder/` and `au_adapter/` into a pipeline folder, in half precision."""
        super().export(folder / "au_adapter")
        for name in ("unet", "text_encoder"):
            save_half(getattr(self, name), folder / name)
