"""Perturbed-attention guidance (Ahn et al. 2024): away from what the U-Net predicts with attention undone.

Where every place attends to itself alone, the parts of a face no longer agree with each other. What such a
pass predicts shows the way from a broken face to a whole one.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synfer_ray.diffusion.attention import merge_heads, split_heads
from synfer_ray.errors import InputError

if TYPE_CHECKING:
    from diffusers.models.attention_processor import Attention


class PerturbableAttnProcessor:
    """Self-attention of a transformer block, undone in the first rows of a batch.

    Attributes:
        perturbed_rows: in so many rows every place keeps its own value; 0 leaves all as they are.
    """

    def __init__(self) -> None:
        self.perturbed_rows = 0

    def __call__(
        self,
        attn: "Attention",
        hidden_states: Tensor,  # [B, HW, C]
        encoder_hidden_states: None = None,
        attention_mask: None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Called by diffusers' `Attention`."""
        value = attn.to_v(hidden_states)
        perturbed, whole = value.tensor_split([self.perturbed_rows])
        states = hidden_states[self.perturbed_rows :]
        query, key = (split_heads(project(states), attn.heads) for project in (attn.to_q, attn.to_k))
        attended = F.scaled_dot_product_attention(query, key, split_heads(whole, attn.heads))
        project, dropout = attn.to_out
        return dropout(project(torch.cat([perturbed, merge_heads(attended)])))


def install_perturbation(unet: nn.Module, layers: Sequence[str]) -> list[PerturbableAttnProcessor]:
    """Returns the processors of every self-attention whose name matches one of `layers`; they stay installed.

    Args:
        layers: regular expressions, as diffusers' `pag_applied_layers`: `mid`, `up` or `down_blocks.2`.

    Raises:
        InputError: one matches no self-attention, or is no regular expression.
    """
    blocks = {name: module for name, module in unet.named_modules() if name.endswith("attn1")}
    chosen: dict[str, nn.Module] = {}
    for layer in layers:
        try:
            matches = {name: block for name, block in blocks.items() if re.search(layer, name)}
        except re.error as error:
            raise InputError(f"pag_applied_layers: {layer!r} is no regular expression: {error}") from error
        if not matches:
            names = ", ".join(blocks) or "no self-attention"
            raise InputError(f"pag_applied_layers: {layer!r} matches none of {names}")
        chosen |= matches
    for block in chosen.values():
        if not isinstance(block.processor, PerturbableAttnProcessor):
            block.set_processor(PerturbableAttnProcessor())
    return [block.processor for block in chosen.values()]


@contextmanager
def perturbed(processors: Sequence[PerturbableAttnProcessor], rows: int) -> Iterator[None]:
    """Undoes attention in the first `rows` rows of every batch meanwhile."""
    for processor in processors:
        processor.perturbed_rows = rows
    try:
        yield
    finally:
        for processor in processors:
            processor.perturbed_rows = 0
