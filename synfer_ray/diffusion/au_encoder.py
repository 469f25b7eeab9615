"""From action units to tokens: our encoder, and those of adapters that others trained.

Each takes [B, 82], the 41 intensities (0 where unknown) and the mask of known ones, and returns [B, N, D].
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synfer_ray.taxonomy.action_units import ACTION_UNITS

FINEFACE_UNITS = (
    "AU01",
    "AU02",
    "AU04",
    "AU05",
    "AU06",
    "AU09",
    "AU12",
    "AU15",
    "AU17",
    "AU20",
    "AU25",
    "AU26",
)
"""The twelve units of DISFA that FineFace knows, in the order of its input."""
FINEFACE_HIDDEN = 64


def mlp_encoder(num_tokens: int, width: int, hidden_dim: int) -> nn.Sequential:
    """Our own: a multilayer perceptron that writes several tokens."""
    return nn.Sequential(
        nn.Linear(2 * len(ACTION_UNITS), hidden_dim),
        nn.GELU(),
        nn.Linear(hidden_dim, hidden_dim),
        nn.GELU(),
        nn.Linear(hidden_dim, num_tokens * width),
        nn.Unflatten(1, (num_tokens, width)),
        nn.LayerNorm(width),
    )


class FineFaceEncoder(nn.Module):
    """FineFace (Varanka et al. 2024): one token of intensities 0 to 5, a linear map of them, and zeros."""

    units: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.au_encoder = nn.Linear(len(FINEFACE_UNITS), FINEFACE_HIDDEN)
        self.register_buffer("units", _places(FINEFACE_UNITS), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns one token."""
        intensities = 5 * inputs[:, self.units]
        token = torch.cat([intensities, self.au_encoder(intensities)], dim=1)
        return F.pad(token, (0, self.width - token.shape[1]))[:, None]


class ProjectionEncoder(nn.Module):
    """IP-Adapter's projection (Ye et al. 2023), but of action units: a linear layer, then layer norm."""

    units: Tensor

    def __init__(self, num_tokens: int, width: int, units: Sequence[str]) -> None:
        super().__init__()
        self.shape = (num_tokens, width)
        self.proj = nn.Linear(len(units), num_tokens * width)
        self.norm = nn.LayerNorm(width)
        self.register_buffer("units", _places(units), persistent=False)

    def forward(self, inputs: Tensor) -> Tensor:
        """Returns the tokens."""
        return self.norm(self.proj(inputs[:, self.units]).unflatten(1, self.shape))


def _places(units: Sequence[str]) -> Tensor:
    return torch.tensor([ACTION_UNITS.index(name) for name in units])
