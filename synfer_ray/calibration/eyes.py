"""Do the eyes of an aligned face match? One is laid over the mirror image of the other.

Filters that pass over a face see one place at a time; whether two places are alike, few of them learn.
"""

from itertools import product

import torch
from torch import Tensor, nn

from synfer_ray.calibration.layers import conv, pooled_head, standardised
from synfer_ray.calibration.networks import prepare

SIDE = 64
"""Pixels of the aligned face (faces/alignment.py, `fer`) in which the places below are counted."""
TOP, BOTTOM, OUTER, INNER = 14, 34, 9, 31
"""Rows and columns from, and up to but without, which show the eye on the picture's left and its brow."""
REACH = 1, 2
"""How far down, up and sideways the other eye may be from where the mirror has it."""


class EyeMatch(nn.Module):
    """How well the eyes of a face match: images [B, 3, H, W] in [-1, 1] -> a logit [B, 1]."""

    def __init__(self, channels: int = 16, dropout: float = 0.4) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            *conv(2, channels),
            *conv(channels, 2 * channels, stride=2),
            *conv(2 * channels, 4 * channels, stride=2),
        )
        self.head = pooled_head(4 * channels, 1, dropout)

    def forward(self, images: Tensor) -> Tensor:
        """Returns more than 0 for eyes that match."""
        return self.head(self.trunk(overlaid_eyes(prepare(images, SIDE))))


def overlaid_eyes(faces: Tensor) -> Tensor:
    """Both eyes of aligned faces [B, 1, 64, 64], as what they share and what they do not.

    Returns:
        The mean of the left eye and the mirrored right one, moved to where it fits best, and their absolute
        difference, [B, 2, 20, 22]; both eyes of a face are standardised together, so that one may be darker.
    """
    mirrored = faces.flip(-1)[:, 0]
    left = faces[:, 0, TOP:BOTTOM, OUTER:INNER]
    down, aside = REACH
    moves = product(range(-down, down + 1), range(-aside, aside + 1))
    others = torch.stack([mirrored[:, TOP + y : BOTTOM + y, OUTER + x : INNER + x] for y, x in moves], 1)
    gaps = standardised(others, -2, -1) - standardised(left, -2, -1)[:, None]
    best = gaps.square().mean((-2, -1)).argmin(1)
    right = others[torch.arange(len(faces), device=faces.device), best]
    left, right = standardised(torch.stack([left, right], 1), 1, 2, 3).unbind(1)
    return torch.stack([(left + right) / 2, (left - right).abs()], 1)
