"""Local editing: a part of a face is drawn anew, the rest stays (blended latents, Avrahami et al. 2023)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from synfer_ray.diffusion.layout import partial_noise
from synfer_ray.diffusion.noise import next_noise

if TYPE_CHECKING:
    from diffusers.schedulers import DDIMScheduler


@dataclass(frozen=True)
class Edit:
    """Faces to continue from, and where.

    Attributes:
        latents: latents x_0 of the faces, [B, C, h, w].
        strength: share of the sampling steps that will be executed, above 0 up to 1.
        mask: how far each place is drawn anew, [h, w] from 0 (it stays) to 1.
    """

    latents: Tensor
    strength: float
    mask: Tensor

    def start(
        self, noise: Tensor, scheduler: "DDIMScheduler", num_inference_steps: int
    ) -> tuple[Tensor, int]:
        """Returns the start latents and the index of the first step to execute."""
        return partial_noise(self.latents, self.strength, noise, scheduler, num_inference_steps)

    def blend(
        self,
        drawn: Tensor,
        scheduler: "DDIMScheduler",
        next_timestep: Tensor,
        generators: Sequence[torch.Generator],
    ) -> Tensor:
        """Puts back what stays, as noisy as what was drawn: `m z + (1 - m) z_0`.

        Args:
            drawn: latents z [B, C, h, w] after a step.
            next_timestep: of the step to come, [1]; empty after the last one.
            generators: of each row, for the noise.
        """
        kept = self.latents
        if len(next_timestep):
            noise = next_noise(generators, drawn.shape[1:]).to(drawn)
            kept = scheduler.add_noise(kept, noise, next_timestep.expand(len(kept)))
        return torch.lerp(kept, drawn, self.mask.to(drawn))
