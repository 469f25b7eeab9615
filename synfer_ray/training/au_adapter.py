"""The AU adapter's training: the same denoising loss with the diffusion model frozen (paper 4.2.2, Eq. 3)."""

from pathlib import Path

import torch
from torch import Tensor

from synfer_ray.diffusion.au_adapter import AUAdapter
from synfer_ray.storage.weights import save_model
from synfer_ray.training.diffusion import CUE_DROP, denoising_loss, draw_rows
from synfer_ray.training.loop import Batch, Objective

DROP_TEXT, DROP_AU, DROP_BOTH = 0.05, 0.05, 0.05


class AUAdapterObjective(Objective):
    """Denoising loss under `input_ids` [B,T] and `action_units` [B,41]; only the adapter learns.

    Text, action units or both are dropped independently, so that each has its own guidance scale in sampling.
    `uncued_ids` [B,T] are the captions without the words on action units.
    """

    empty_ids: Tensor

    def __init__(self, unet, text_encoder, scheduler, empty_ids: Tensor, adapter: AUAdapter):
        super().__init__()
        self.unet, self.text_encoder, self.scheduler = unet, text_encoder, scheduler
        self.adapter = adapter
        self.unet.requires_grad_(False)
        self.text_encoder.requires_grad_(False)
        self.register_buffer("empty_ids", empty_ids, persistent=False)
        adapter.attach(unet)

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Eq. 3 with the AU tokens after the text tokens."""
        rows, device = len(batch["latents"]), batch["latents"].device
        draw, input_ids = torch.ones(rows, device=device), batch["input_ids"]
        if self.training:
            draw = torch.rand(rows, generator=generator, device=device)
            is_uncued = draw_rows(rows, CUE_DROP, generator)
            input_ids = torch.where(is_uncued[:, None], batch["uncued_ids"], input_ids)
        no_text = (draw < DROP_TEXT) | (draw >= 1 - DROP_BOTH) & (draw < 1)
        no_au = (draw >= DROP_TEXT) & (draw < DROP_TEXT + DROP_AU) | (draw >= 1 - DROP_BOTH) & (draw < 1)
        text = self.text_encoder(torch.where(no_text[:, None], self.empty_ids, input_ids))[0]
        tokens = torch.cat([text, self.adapter.encode(batch["action_units"], no_au)], dim=1)
        return denoising_loss(self.unet, self.scheduler, batch["latents"], tokens, generator), {}

    def export(self, folder: Path) -> None:
        """Writes the adapter's config.json and model.safetensors, in half precision."""
        save_model(self.adapter, folder, half=True)
