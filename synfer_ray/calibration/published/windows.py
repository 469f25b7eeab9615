"""Attention within windows and the multilayer perceptron that follows it, as Swin and POSTER++ share them."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Mlp(nn.Module):
    """Two linear layers with a GELU between: [..., width] -> [..., width]."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """Applies both layers."""
        return self.fc2(F.gelu(self.fc1(x)))


class RelativeBias(nn.Module):
    """A learned bias for each head and each offset between two places of a square window.

    The index of the offsets is a constant, but published checkpoints store it, so it is loaded like a weight.
    """

    relative_position_index: Tensor

    def __init__(self, window: int, heads: int) -> None:
        super().__init__()
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window - 1) ** 2, heads))
        self.register_buffer("relative_position_index", offset_index(window))

    def bias(self) -> Tensor:
        """Returns the bias of every pair of places, [1, heads, window^2, window^2]."""
        return self.relative_position_bias_table[self.relative_position_index].permute(2, 0, 1)[None]


def offset_index(window: int) -> Tensor:
    """Numbers the offsets between the places of a window, int64 [window^2, window^2]."""
    rows, columns = torch.meshgrid(torch.arange(window), torch.arange(window), indexing="ij")
    rows, columns = rows.flatten(), columns.flatten()
    down = rows[:, None] - rows[None] + window - 1
    right = columns[:, None] - columns[None] + window - 1
    return down * (2 * window - 1) + right


def split_heads(x: Tensor, heads: int) -> Tensor:
    """[B, N, C] -> [B, heads, N, C / heads]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def merge_heads(x: Tensor) -> Tensor:
    """[B, heads, N, C / heads] -> [B, N, C]."""
    return x.transpose(1, 2).flatten(2)
