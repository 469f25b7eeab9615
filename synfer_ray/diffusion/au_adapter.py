"""The AU adapter: action-unit intensities -> several tokens with their own keys and values (paper 4.2.2)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from synfer_ray.diffusion.attention import cross_attention_blocks, install_processors
from synfer_ray.diffusion.au_encoder import FineFaceEncoder, ProjectionEncoder, mlp_encoder
from synfer_ray.errors import InputError, choose
from synfer_ray.taxonomy.action_units import ACTION_UNITS

ENCODERS = ("mlp", "fineface", "projection")


class AUKeyValue(nn.Module):
    """Keys and values of the AU tokens in one cross-attention block; new values are zero."""

    def __init__(self, cross_attention_dim: int, channels: int):
        super().__init__()
        self.to_k = nn.Linear(cross_attention_dim, channels, bias=False)
        self.to_v = nn.Linear(cross_attention_dim, channels, bias=False)
        nn.init.zeros_(self.to_v.weight)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Projects AU tokens [B, N, D] to keys and values [B, N, channels]."""
        return self.to_k(tokens), self.to_v(tokens)


class AUAdapter(nn.Module):
    """Conditions a frozen U-Net on action units through decoupled cross-attention.

    The encoder is an MLP over the intensities and the mask of known ones. It writes several tokens: the
    softmax over a single one is constant, so that its effect could not vary over the image. "No AU condition"
    is a learned set of null tokens, not the zero vector, which describes a relaxed face.

    Args:
        cross_attention_dim: width D of the text tokens.
        block_channels: inner width of each cross-attention block, in `cross_attention_blocks` order.
        num_tokens: number N of AU tokens; 1 only to hold weights of single-token adapters.
        hidden_dim: width of the MLP.
        supported: names of the action units that were labelled in training; all others count as unknown.
        encoder: `mlp`, or the encoder of an imported adapter: `fineface` or `projection`; see `interchange`.

    Attributes:
        scale: weight s_au of the AU branch in every block; may be changed at any time.
        config: the keywords that build this adapter again.

    Raises:
        InputError: a supported action unit is not one of `ACTION_UNITS`, or the encoder is unknown.
    """

    is_supported: Tensor

    def __init__(
        self,
        cross_attention_dim: int,
        block_channels: Sequence[int],
        num_tokens: int = 8,
        hidden_dim: int = 256,
        supported: Sequence[str] = ACTION_UNITS,
        encoder: str = "mlp",
    ):
        super().__init__()
        self.config: dict[str, Any] = {
            "cross_attention_dim": cross_attention_dim,
            "block_channels": list(block_channels),
            "num_tokens": num_tokens,
            "hidden_dim": hidden_dim,
            "supported": [choose(name, ACTION_UNITS, "action unit") for name in supported],
            "encoder": choose(encoder, ENCODERS, "AU encoder"),
        }
        self.num_tokens = num_tokens
        self.scale = 1.0
        self.encoder: nn.Module
        if encoder == "fineface":
            self.encoder = FineFaceEncoder(cross_attention_dim)
        elif encoder == "projection":
            self.encoder = ProjectionEncoder(num_tokens, cross_attention_dim, supported)
        else:
            self.encoder = mlp_encoder(num_tokens, cross_attention_dim, hidden_dim)
        self.null = nn.Parameter(0.02 * torch.randn(num_tokens, cross_attention_dim))
        self.layers = nn.ModuleList(AUKeyValue(cross_attention_dim, channels) for channels in block_channels)
        is_supported = torch.tensor([name in self.config["supported"] for name in ACTION_UNITS])
        self.register_buffer("is_supported", is_supported, persistent=False)

    @classmethod
    def for_unet(
        cls,
        unet: nn.Module,
        num_tokens: int = 8,
        hidden_dim: int = 256,
        supported: Sequence[str] = ACTION_UNITS,
    ) -> "AUAdapter":
        """Builds the adapter that fits `unet`; its keys start as the text keys.

        As its values start at zero, the new adapter leaves the U-Net's output as it is.
        """
        blocks = [attention for _, attention in cross_attention_blocks(unet)]
        channels = [attention.inner_dim for attention in blocks]
        adapter = cls(blocks[0].cross_attention_dim, channels, num_tokens, hidden_dim, supported)
        for index, attention in enumerate(blocks):
            adapter.get_parameter(f"layers.{index}.to_k.weight").data.copy_(attention.to_k.weight)
        return adapter.to(blocks[0].to_k.weight.device)

    def encode(self, action_units: Tensor, null_mask: Tensor | None = None) -> Tensor:
        """Turns action units into tokens.

        Args:
            action_units: intensities in [0, 1], [B, 41] in `ACTION_UNITS` order; NaN = unknown.
            null_mask: rows whose AU condition is dropped, bool [B].

        Returns:
            AU tokens [B, N, D]; the null tokens in dropped rows and in rows without any known action unit.
        """
        known = self.is_supported & ~action_units.isnan()
        is_null = ~known.any(dim=1) if null_mask is None else null_mask | ~known.any(dim=1)
        values = action_units.where(known, 0.0)
        tokens = self.encoder(torch.cat([values, known], dim=1).to(self.null.dtype))
        return torch.where(is_null[:, None, None], self.null, tokens)

    def null_tokens(self, batch_size: int) -> Tensor:
        """Returns the learned tokens for "no AU condition", [B, N, D]."""
        return self.null.expand(batch_size, -1, -1)

    def attach(self, unet: nn.Module, scale: float = 1.0) -> None:
        """Installs the AU branch in every cross-attention block of `unet`.

        From then on `unet` expects the AU tokens after the text tokens: `cat([text, tokens], dim=1)`.

        Raises:
            InputError: the adapter was made for a U-Net of another shape.
        """
        blocks = [attention for _, attention in cross_attention_blocks(unet)]
        expected = {
            "cross_attention_dim": blocks[0].cross_attention_dim,
            "block_channels": [attention.inner_dim for attention in blocks],
        }
        for key, value in expected.items():
            if self.config[key] != value:
                raise InputError(
                    f"the AU adapter does not fit this U-Net: {key} {self.config[key]} instead of {value}"
                )
        self.scale = scale
        install_processors(unet, self)

    @staticmethod
    def detach(unet: nn.Module) -> None:
        """Takes any AU adapter out of `unet`: it is a plain text-conditioned model again."""
        install_processors(unet)
