"""Decoupled cross-attention: text and action units read by the same query (paper 4.2.2, after IP-Adapter)."""

from typing import TYPE_CHECKING

import torch.nn.functional as F
from torch import Tensor, nn

from synfer_ray.errors import InputError

if TYPE_CHECKING:
    from diffusers.models.attention_processor import Attention

    from synfer_ray.diffusion.au_adapter import AUAdapter


class DecoupledAttnProcessor:
    """Computes `Attn(q, K_text, V_text) + s_au * Attn(q, K_au, V_au)` in one cross-attention block.

    The last `adapter.num_tokens` of the encoder states are AU tokens; without an adapter all are text. A
    scale of zero skips the AU branch: the output equals the base model's bit for bit. The adapter owns its
    weights, so that the U-Net's state dict stays that of a plain Stable Diffusion model.

    Attributes:
        capture: a list to which every call appends its text attention map, the mean over heads
            [batch, pixels, text tokens]; None records nothing. The output is the same either way.
    """

    def __init__(self, adapter: "AUAdapter | None" = None, block: int = 0):
        self.adapter = adapter
        self.block = block
        self.capture: list[Tensor] | None = None

    def __call__(
        self,
        attn: "Attention",
        hidden_states: Tensor,  # [B, HW, C]
        encoder_hidden_states: Tensor,  # [B, text tokens + AU tokens, D]
        attention_mask: None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Called by diffusers' `Attention`; Stable Diffusion masks no text token."""
        num_text = encoder_hidden_states.shape[1] - (self.adapter.num_tokens if self.adapter else 0)
        text, action_units = encoder_hidden_states.tensor_split([num_text], dim=1)

        query = _split_heads(attn.to_q(hidden_states), attn.heads)
        key = _split_heads(attn.to_k(text), attn.heads)
        output = F.scaled_dot_product_attention(query, key, _split_heads(attn.to_v(text), attn.heads))
        if self.capture is not None:
            scores = query.float() @ key.float().transpose(-1, -2) * attn.scale  # float16 could overflow
            self.capture.append(scores.softmax(dim=-1).mean(dim=1))

        if self.adapter and self.adapter.scale:
            au_key, au_value = self.adapter.layers[self.block](action_units)
            au_output = F.scaled_dot_product_attention(
                query, _split_heads(au_key, attn.heads), _split_heads(au_value, attn.heads)
            )
            output = output + self.adapter.scale * au_output

        project, dropout = attn.to_out
        return dropout(project(output.transpose(1, 2).flatten(2)))


def cross_attention_blocks(unet: nn.Module) -> list[tuple[str, "Attention"]]:
    """Returns (name, module) of every text cross-attention `attn2`, in the order of the U-Net's state dict.

    Raises:
        InputError: the U-Net has none.
    """
    blocks = [(name, module) for name, module in unet.named_modules() if name.endswith("attn2")]
    if not blocks:
        raise InputError(
            f"{type(unet).__name__} has no cross-attention block (attn2); "
            "a Stable Diffusion 1.x or 2.x UNet2DConditionModel is needed"
        )
    return blocks  # type: ignore[return-value]


def install_processors(unet: nn.Module, adapter: "AUAdapter | None" = None) -> list[DecoupledAttnProcessor]:
    """Gives every `attn2` a `DecoupledAttnProcessor`; self-attention stays untouched.

    Raises:
        InputError: the U-Net has no cross-attention.
    """
    processors = []
    for index, (_, attention) in enumerate(cross_attention_blocks(unet)):
        processors.append(DecoupledAttnProcessor(adapter, index))
        attention.set_processor(processors[-1])
    return processors


def _split_heads(states: Tensor, heads: int) -> Tensor:
    return states.unflatten(-1, (heads, -1)).transpose(1, 2)  # [B, N, C] -> [B, heads, N, C / heads]
