"""Local editing: the rows of a batch are one face but for one place, which each draws by its own conditions.

As in blended latent diffusion (Avrahami et al. 2023), where the first row is the image to edit. Rows that get
the same noise differ by their conditions alone.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class LocalEdit:
    """Where, and from when on, the rows of a batch may differ from the first.

    Attributes:
        mask: how freely each place is drawn, [h, w] from 0 (as in the first row) to 1.
        strength: share of the sampling steps, the last ones, in which any place is free; above 0 up to 1.
    """

    mask: Tensor
    strength: float = 1.0

    def blend(self, latents: Tensor, done: int, steps: int) -> Tensor:
        """Puts the first row's part into all rows of `latents` [B, C, h, w], after `done` of the steps."""
        if done <= steps - round(self.strength * steps):
            return latents[:1].expand_as(latents)
        return torch.lerp(latents[:1], latents, self.mask.to(latents))
