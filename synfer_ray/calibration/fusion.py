"""The building blocks of FERAnno: two branches of evidence, encoded and fused scale by scale (paper 4.4)."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

LARGEST_GRID = 16
"""Finer grids are pooled to this side before their cells attend to each other."""


class FusionScale(nn.Module):
    """One resolution: encode both branches, add the coarser scale, let the branches attend to each other."""

    def __init__(self, channels: dict[str, int], width: int, heads: int) -> None:
        super().__init__()
        self.encode = nn.ModuleDict({
            branch: nn.Sequential(nn.BatchNorm2d(count), nn.Conv2d(count, width, 1), ResidualConv(width))
            for branch, count in channels.items()
        })  # fmt: skip
        self.from_coarser = nn.ModuleDict({branch: nn.Conv2d(width, width, 1) for branch in channels})
        self.attention = BidirectionalAttention(list(channels), width, heads)

    def forward(self, grids: dict[str, Tensor], coarser: dict[str, Tensor]) -> dict[str, Tensor]:
        """Grids [B, C, S, S] and the coarser scale's result -> [B, width, min(S, 16), min(S, 16)]."""
        encoded = {}
        for branch, grid in grids.items():
            side = min(int(grid.shape[-1]), LARGEST_GRID)
            encoded[branch] = F.adaptive_avg_pool2d(self.encode[branch](grid), side)
            if coarser:
                enlarged = F.interpolate(coarser[branch], size=(side, side), mode="nearest")
                encoded[branch] = encoded[branch] + self.from_coarser[branch](enlarged)
        tokens = {branch: grid.flatten(2).transpose(1, 2) for branch, grid in encoded.items()}
        fused = self.attention(tokens)
        return {branch: fused[branch].transpose(1, 2).reshape(grid.shape) for branch, grid in encoded.items()}


class ResidualConv(nn.Module):
    """conv3x3 - norm - activation - conv3x3, plus a skip."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1),
            nn.GroupNorm(8, width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, width, H, W] -> the same shape."""
        return x + self.body(x)


class BidirectionalAttention(nn.Module):
    """Each branch attends to the other, then passes a feed-forward network; one alone attends to itself."""

    def __init__(self, branches: Sequence[str], width: int, heads: int) -> None:
        super().__init__()
        self.partner = dict(zip(branches, reversed(branches)))
        self.norm = nn.ModuleDict({branch: nn.LayerNorm(width) for branch in branches})
        self.attend = nn.ModuleDict(
            {branch: nn.MultiheadAttention(width, heads, batch_first=True) for branch in branches}
        )
        self.feed_forward = nn.ModuleDict({
            branch: nn.Sequential(
                nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
            )
            for branch in branches
        })  # fmt: skip

    def forward(self, tokens: dict[str, Tensor]) -> dict[str, Tensor]:
        """Branch -> tokens [B, N, width]; the same shapes come out."""
        normed = {branch: self.norm[branch](x) for branch, x in tokens.items()}
        fused = {}
        for branch, x in tokens.items():
            other = normed[self.partner[branch]]
            x = x + self.attend[branch](normed[branch], other, other, need_weights=False)[0]
            fused[branch] = x + self.feed_forward[branch](x)
        return fused
