"""A tiny decoder: what a latent will look like, at a fraction of the autoencoder's cost."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn


class PreviewDecoder(nn.Module):
    """Latents [B, C, h, w] as the U-Net sees them -> images [B, 3, h * factor, w * factor] in about [-1, 1].

    Semantic guidance looks through it. All convolutions run on the latent's grid; the last one writes each
    cell's block of pixels. It is trained to repeat the autoencoder's own decoder.

    Args:
        latent_channels: channels C of a latent.
        factor: pixels a latent cell spans along each side.
        width: channels in between.
    """

    def __init__(self, latent_channels: int, factor: int, width: int = 96):
        super().__init__()
        self.config: dict[str, Any] = {"latent_channels": latent_channels, "factor": factor, "width": width}
        self.factor = factor
        self.first = nn.Conv2d(latent_channels, width, 3, padding=1)
        self.middle = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(3))
        self.last = nn.Conv2d(width, 3 * factor**2, 3, padding=1)

    def forward(self, latents: Tensor) -> Tensor:
        """Decodes; differentiable, each row on its own."""
        states = self.first(latents)
        for convolution in self.middle:
            states = states + convolution(F.relu(states))
        return F.pixel_shuffle(self.last(F.relu(states)), self.factor)
