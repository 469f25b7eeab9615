"""Noise that belongs to a row: it follows from the row's seed alone, not from the batch around it."""

from collections.abc import Sequence

import torch
from torch import Tensor


def row_generator(seed: int) -> torch.Generator:
    """Returns the generator of one row, on the CPU so that every device sees the same noise."""
    return torch.Generator().manual_seed(seed)


def initial_noise(seeds: Sequence[int], shape: Sequence[int]) -> Tensor:
    """Returns standard normal noise [B, *shape], one generator for each row."""
    return next_noise([row_generator(seed) for seed in seeds], shape)


def next_noise(generators: Sequence[torch.Generator], shape: Sequence[int]) -> Tensor:
    """Draws the next noise [B, *shape] of each row from its generator."""
    return torch.stack([torch.randn(tuple(shape), generator=generator) for generator in generators])
