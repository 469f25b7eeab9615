"""What a denoiser reads in training: text and action units, each left out at times (paper 4.2.2)."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from synfer_ray.training.diffusion import CUE_DROP, draw_rows
from synfer_ray.training.loop import Batch, Objective

if TYPE_CHECKING:
    from diffusers import DDIMScheduler
    from transformers import CLIPTextModel

    from synfer_ray.diffusion.au_adapter import AUAdapter

DROP_TEXT, DROP_AU, DROP_BOTH = 0.05, 0.05, 0.05


class ConditionedObjective(Objective):
    """Denoising under the tokens of `input_ids` [B,T] and `action_units` [B,41].

    Text, action units or both are dropped independently, so that each has its own guidance scale in sampling.
    `uncued_ids` [B,T] are the captions without the words on action units.

    Args:
        empty_ids: tokens of the empty prompt [T].
    """

    empty_ids: Tensor

    def __init__(
        self,
        text_encoder: "CLIPTextModel",
        adapter: "AUAdapter",
        scheduler: "DDIMScheduler",
        empty_ids: Tensor,
    ):
        super().__init__()
        self.text_encoder, self.adapter, self.scheduler = text_encoder, adapter, scheduler
        self.register_buffer("empty_ids", empty_ids, persistent=False)

    def conditions(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """Draws what each row is told: text tokens, then AU tokens, [B,T+N,D]."""
        rows, device = len(batch["latents"]), batch["latents"].device
        draw, input_ids = torch.ones(rows, device=device), batch["input_ids"]
        if self.training:
            draw = torch.rand(rows, generator=generator, device=device)
            is_uncued = draw_rows(rows, CUE_DROP, generator)
            input_ids = torch.where(is_uncued[:, None], batch["uncued_ids"], input_ids)
        no_text = (draw < DROP_TEXT) | (draw >= 1 - DROP_BOTH) & (draw < 1)
        no_au = (draw >= DROP_TEXT) & (draw < DROP_TEXT + DROP_AU) | (draw >= 1 - DROP_BOTH) & (draw < 1)
        text = self.text_encoder(torch.where(no_text[:, None], self.empty_ids, input_ids))[0]
        return torch.cat([text, self.adapter.encode(batch["action_units"], no_au)], dim=1)
