"""The model learns from its own draws which it had better made: whole faces that show what was asked for.

Pairs of draws of one expression, the better one first, by Diffusion-DPO (Wallace et al. 2024): of the better
draw the model is to predict the noise better than it did, of the worse one worse. Where that leads, it can
then go a few times as far (ExPO, Zheng et al. 2025).
"""

from collections.abc import Iterator
from copy import deepcopy
from itertools import cycle, islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from synfer_ray.training.conditions import ConditionedObjective
from synfer_ray.training.diffusion import denoising_errors
from synfer_ray.training.loop import Arrays, Batch
from synfer_ray.training.saving import save_half

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

BETA = 2000.0
"""How little the model may move away from what it was: the factor of Eq. 14, on mean errors."""
WITHOUT_AU, WITHOUT_BOTH = 0.4, 0.1
"""Shares of the pairs that are shown without action units, and without text as well."""
TAIL = 0.4
"""Share of an expression's draws that count as better, and as worse."""


class PreferenceObjective(ConditionedObjective):
    """Pairs of draws: `latents` [B,2,C,h,w], `input_ids` [B,2,T] and `action_units` [B,2,41], better first.

    Args:
        unet: learns; what it was stays beside it.
        conditions: what `ConditionedObjective` takes.
        stride: the exported model is so many times as far from what it was as the one that learnt.
    """

    def __init__(self, unet: "UNet2DConditionModel", *conditions, stride: float = 1.0):
        super().__init__(*conditions)
        self.stride = stride
        self.reference = deepcopy(unet).requires_grad_(False)
        self.adapter.attach(self.reference)  # the copy has one of its own, which would stay on its device
        self.unet = unet.requires_grad_(True)
        self.text_encoder.requires_grad_(False)
        self.adapter.requires_grad_(False)

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Both draws of a pair meet the same noise; `preferred` is the share of pairs in the right order."""
        pairs, device = len(batch["latents"]), batch["latents"].device
        latents = batch["latents"].flatten(0, 1)
        tokens = self.tokens(batch, generator)
        noise = torch.randn(latents[::2].shape, generator=generator, device=device)
        steps = self.scheduler.config.num_train_timesteps
        timesteps = torch.randint(0, steps, (pairs,), generator=generator, device=device)
        noise, timesteps = (values.repeat_interleave(2, dim=0) for values in (noise, timesteps))

        with torch.no_grad():
            before = denoising_errors(self.reference, self.scheduler, latents, noise, timesteps, tokens)
        errors = denoising_errors(self.unet, self.scheduler, latents, noise, timesteps, tokens)
        gained = (before - errors).view(pairs, 2)
        margin = gained[:, 0] - gained[:, 1]
        loss = -F.logsigmoid(BETA * margin).mean()
        return loss, {"preferred": (margin > 0).float().mean().item(), "gained": gained[:, 0].mean().item()}

    def tokens(self, batch: Batch, generator: torch.Generator) -> Tensor:
        """What each draw was asked to show, text and then AU tokens [2B,T+N,D], in part of the pairs less."""
        input_ids, action_units = batch["input_ids"].flatten(0, 1), batch["action_units"].flatten(0, 1)
        draw = torch.ones(len(batch["latents"]), device=input_ids.device)
        if self.training:
            draw = torch.rand(draw.shape, generator=generator, device=draw.device)
        draw = draw.repeat_interleave(2)
        input_ids = torch.where((draw < WITHOUT_BOTH)[:, None], self.empty_ids, input_ids)
        au_tokens = self.adapter.encode(action_units, draw < WITHOUT_BOTH + WITHOUT_AU)
        return torch.cat([self.text_encoder(input_ids)[0], au_tokens], dim=1)

    def final_metrics(self, held_out: Arrays, device: torch.device) -> dict[str, float]:
        """The stride, to be on record with what it was applied to."""
        return {"stride": self.stride}

    def export(self, folder: Path) -> None:
        """Writes the U-Net, moved on by `stride`, without its adapter, in half precision."""
        from synfer_ray.diffusion.au_adapter import AUAdapter

        for network in (self.unet, self.reference):
            AUAdapter.detach(network)
        with torch.no_grad():
            for value, before in zip(self.unet.parameters(), self.reference.parameters(), strict=True):
                value.copy_(torch.lerp(before, value, self.stride))
        save_half(self.unet, folder)


def preference(wholeness: NDArray[np.floating], agreement: NDArray[np.floating]) -> NDArray[np.float64]:
    """How good a draw is: how whole, and half as much how sure the experts are of its label; [N] each."""
    return np.log(wholeness.clip(0.02)) + 0.5 * np.log(agreement.clip(0.02))


def pair_up(
    scores: NDArray[np.floating], labels: NDArray[np.integer], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """Draws `count` pairs of rows [count,2], of all expressions in turn, from both ends of their scores.

    Args:
        scores: how good each draw is, [N].
        labels: its expression, [N]; one with too few draws to have two ends is left out.
    """
    ends = list(_ends(scores, labels))
    chosen = islice(cycle(ends), count)
    pairs = [(rng.choice(better), rng.choice(worse)) for better, worse in chosen]
    return np.array(pairs, np.int64).reshape(-1, 2)


def _ends(
    scores: NDArray[np.floating], labels: NDArray[np.integer]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        rows = rows[np.argsort(-scores[rows], kind="stable")]
        size = int(TAIL * len(rows))
        if size:
            yield rows[:size], rows[-size:]
