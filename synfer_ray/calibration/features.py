"""What a diffusion U-Net sees in a face: features and cross-attention maps by resolution (paper 4.4)."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch
from torch import Tensor, nn

from synfer_ray.diffusion.attention import DecoupledAttnProcessor, cross_attention_blocks


@dataclass(frozen=True)
class UNetFeatures:
    """Both kinds of evidence at each resolution; the keys are the sides of the grids, coarse to fine.

    Attributes:
        features: outputs of the up path, concatenated on channels, float32 [B, C, side, side].
        attention: text cross-attention, mean over blocks and heads, float32 [B, tokens, side, side].
    """

    features: dict[int, Tensor]
    attention: dict[int, Tensor]


def extract_features(
    unet: nn.Module,
    latents: Tensor,
    timestep: int,
    context: Tensor,
    tokens: slice = slice(None),
) -> UNetFeatures:
    """Runs the U-Net once and collects what passes through it.

    Resolutions come from the traced sizes, never from layer names, so that any topology and image size
    works. For Stable Diffusion 1.x the maps of 5 / 5 / 5 / 1 blocks are averaged, from fine to coarse.

    Args:
        unet: with the processors of `install_processors` or of an AU adapter.
        latents: square latents [B, C, S, S].
        context: text tokens, followed by AU tokens where an adapter is attached, [B, T (+ N), D].
        tokens: the text tokens whose attention maps are kept.
    """
    with _recording(unet) as (outputs, processors):
        unet.forward(latents, timestep, encoder_hidden_states=context)  # hooks do not go with compilation
        maps = [map_ for processor in processors for map_ in processor.capture or []]
    return UNetFeatures(
        features={side: torch.cat(group, dim=1) for side, group in group_by_side(outputs).items()},
        attention={
            side: torch.stack(group).mean(0)[:, tokens]
            for side, group in group_by_side(map(_as_grid, maps)).items()
        },
    )


def group_by_side(grids: Iterable[Tensor]) -> dict[int, list[Tensor]]:
    """Groups tensors [B, C, side, side] by side, coarse to fine, as float32."""
    groups: dict[int, list[Tensor]] = defaultdict(list)
    for grid in grids:
        groups[int(grid.shape[-1])].append(grid.float())
    return dict(sorted(groups.items()))


@contextmanager
def _recording(unet: Any) -> Iterator[tuple[list[Tensor], list[DecoupledAttnProcessor]]]:
    outputs: list[Tensor] = []
    handles = [
        layer.register_forward_hook(lambda _layer, _args, output: outputs.append(_sample(output)))
        for block in unet.up_blocks
        for layer in getattr(block, "attentions", block.resnets)
    ]
    processors: list[Any] = [attention.processor for _, attention in cross_attention_blocks(unet)]
    for processor in processors:
        processor.capture = []
    try:
        yield outputs, processors
    finally:
        for handle in handles:
            handle.remove()
        for processor in processors:
            processor.capture = None


def _sample(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    return output[0] if isinstance(output, tuple) else output


def _as_grid(attention: Tensor) -> Tensor:
    side = isqrt(int(attention.shape[1]))
    return attention.transpose(1, 2).unflatten(-1, (side, side))  # [B, HW, T] -> [B, T, H, W]
