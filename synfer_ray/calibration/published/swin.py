"""Swin Transformer trunks (Liu et al. 2021) for images of 224 pixels, with the authors' key names."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synfer_ray.calibration.published.windows import Mlp, RelativeBias, merge_heads, split_heads

WINDOW = 7


class WindowAttention(RelativeBias):
    """Self-attention of the 49 places of each window."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(WINDOW, heads)
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, windows: Tensor, mask: Tensor | None) -> Tensor:
        """Windows [B * windows, 49, C] and their mask [windows, 49, 49] or None -> the same shape."""
        query, key, value = (split_heads(part, self.heads) for part in self.qkv(windows).chunk(3, dim=-1))
        bias = self.bias()
        if mask is not None:
            bias = (bias + mask[:, None]).repeat(len(windows) // len(mask), 1, 1, 1)
        return self.proj(merge_heads(F.scaled_dot_product_attention(query, key, value, bias)))


class SwinBlock(nn.Module):
    """Window attention, shifted by half a window if `shift`, and an MLP: [B, side^2, C] -> [B, side^2, C]."""

    attn_mask: Tensor | None

    def __init__(self, width: int, heads: int, side: int, shift: int) -> None:
        super().__init__()
        self.side, self.shift = side, shift
        self.norm1 = nn.LayerNorm(width)
        self.attn = WindowAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, 4 * width)
        self.register_buffer("attn_mask", shifted_mask(side, shift) if shift else None)

    def forward(self, x: Tensor) -> Tensor:
        """Applies the block."""
        grid = self.norm1(x).unflatten(1, (self.side, self.side))
        if self.shift:
            grid = grid.roll((-self.shift, -self.shift), dims=(1, 2))
        grid = _from_windows(self.attn(_to_windows(grid), self.attn_mask), self.side)
        if self.shift:
            grid = grid.roll((self.shift, self.shift), dims=(1, 2))
        x = x + grid.flatten(1, 2)
        return x + self.mlp(self.norm2(x))


class PatchMerging(nn.Module):
    """Joins 2 x 2 places: [B, side^2, C] -> [B, side^2 / 4, 2 C]."""

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.side = side
        self.reduction = nn.Linear(4 * width, 2 * width, bias=False)
        self.norm = nn.LayerNorm(4 * width)

    def forward(self, x: Tensor) -> Tensor:
        """Joins the places in the order of the published weights: down first, then right."""
        grid = x.unflatten(1, (self.side, self.side))
        quarters = [grid[:, down::2, right::2] for right in (0, 1) for down in (0, 1)]
        return self.reduction(self.norm(torch.cat(quarters, dim=-1).flatten(1, 2)))


class SwinStage(nn.Module):
    """Blocks of one resolution, plain and shifted in turn; a window that fills the image is not shifted."""

    def __init__(self, width: int, heads: int, side: int, depth: int, last: bool) -> None:
        super().__init__()
        shift = WINDOW // 2 if side > WINDOW else 0
        self.blocks = nn.ModuleList(
            SwinBlock(width, heads, side, shift * (index % 2)) for index in range(depth)
        )
        self.downsample = None if last else PatchMerging(width, side)

    def forward(self, x: Tensor) -> Tensor:
        """Applies the stage."""
        for block in self.blocks:
            x = block(x)
        return self.downsample(x) if self.downsample else x


class PatchEmbedding(nn.Module):
    """Patches of 4 x 4 pixels: [B, 3, 224, 224] -> [B, 3136, width]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, 4, stride=4)
        self.norm = nn.LayerNorm(width)

    def forward(self, pixels: Tensor) -> Tensor:
        """Embeds the patches."""
        return self.norm(self.proj(pixels).flatten(2).transpose(1, 2))


class SwinTransformer(nn.Module):
    """The trunk without its classifier: [B, 3, 224, 224] -> tokens [B, 49, 8 width], row by row.

    Args:
        width: channels of the first stage; each further one has twice as many.
        depths: blocks in each of the four stages.
        heads: attention heads in each stage.
    """

    def __init__(self, width: int, depths: Sequence[int], heads: Sequence[int]) -> None:
        super().__init__()
        self.channels = 8 * width
        self.patch_embed = PatchEmbedding(width)
        self.layers = nn.ModuleList(
            SwinStage(width << index, heads[index], 56 >> index, depth, last=index == 3)
            for index, depth in enumerate(depths)
        )
        self.norm = nn.LayerNorm(self.channels)

    def forward(self, pixels: Tensor) -> Tensor:
        """Returns the tokens of the last stage."""
        x = self.patch_embed(pixels)
        for stage in self.layers:
            x = stage(x)
        return self.norm(x)


def shifted_mask(side: int, shift: int) -> Tensor:
    """Keeps places apart that only rolling made neighbours: 0 or -100, [windows, 49, 49]."""
    band = torch.zeros(side)
    band[side - WINDOW : side - shift], band[side - shift :] = 1, 2
    regions = _to_windows((3 * band[:, None] + band)[None, ..., None]).squeeze(-1)
    return torch.where(regions[:, None] != regions[:, :, None], -100.0, 0.0)


def _to_windows(grid: Tensor) -> Tensor:
    """[B, side, side, C] -> [B * windows, 49, C]."""
    rows = grid.unflatten(1, (-1, WINDOW)).unflatten(3, (-1, WINDOW))  # [B, rows, 7, columns, 7, C]
    return rows.transpose(2, 3).flatten(0, 2).flatten(1, 2)


def _from_windows(windows: Tensor, side: int) -> Tensor:
    """[B * windows, 49, C] -> [B, side, side, C]."""
    count = side // WINDOW
    rows = windows.unflatten(0, (-1, count, count)).unflatten(3, (WINDOW, WINDOW)).transpose(2, 3)
    return rows.flatten(3, 4).flatten(1, 2)
