"""A critic of faces: what tells restored and generated images from real ones (Goodfellow et al. 2014)."""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synfer_ray.calibration.networks import luminance

WIDTH = 32
FINE, COARSE = 3, 9
"""Sides of the squares, in pixels, whose averages are taken away to see details."""


class Critic(nn.Module):
    """Judges overlapping parts of images [B,3,H,W]: logits [B,1,H/8,W/8], above zero where they look real.

    Blurred images differ from real ones in their details, which are small numbers: the critic is shown them
    enlarged, and learns within some hundred steps.
    """

    def __init__(self, width: int = WIDTH):
        super().__init__()
        channels = [width, 2 * width, 4 * width, 6 * width]
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1), nn.LeakyReLU(0.2)]
        for a, b in pairwise(channels):
            layers += [nn.Conv2d(a, b, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        layers += [nn.Conv2d(channels[-1], channels[-1], 3, padding=1), nn.LeakyReLU(0.2)]
        self.layers = nn.Sequential(*layers, nn.Conv2d(channels[-1], 1, 3, padding=1))
        for name, value in self.layers.named_parameters():
            if name.endswith("weight"):
                nn.init.kaiming_normal_(value, 0.2)
            else:
                nn.init.zeros_(value)

    def forward(self, images: Tensor) -> Tensor:
        """Images in [-1,1] -> logits."""
        return self.layers(details(images)).float()


def details(images: Tensor) -> Tensor:
    """Luminance of images [B,3,H,W], and what it adds to the averages around each pixel, enlarged."""
    grey = luminance(images)
    fine, coarse = (
        grey - F.avg_pool2d(grey, side, stride=1, padding=side // 2, count_include_pad=False)
        for side in (FINE, COARSE)
    )
    return torch.cat([2 * grey, 8 * fine, 4 * coarse], dim=1)


def critic_loss(real: Tensor, made: Tensor) -> Tensor:
    """The critic's loss on its logits of real images and of made ones: binary cross-entropy."""
    return F.softplus(-real).mean() + F.softplus(made).mean()


def gradient_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """How steep the critic is at real images: its squared gradient (R1, Mescheder et al. 2018, Eq. 9)."""
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.square().sum(dim=(1, 2, 3)).mean()
