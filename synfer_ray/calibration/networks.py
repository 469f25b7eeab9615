"""Small expression classifiers and the action-unit labeller: the experts that the bundle ships.

Three classifiers of different families vote, guide and judge, so that they do not share their errors. Each
takes images [B, 3, H, W] in [-1, 1] of any size and does its own differentiable preprocessing: a guide can be
differentiated down to the pixels, and no caller can prepare the images in a wrong way.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synfer_ray.calibration.layers import SeparableBlock, conv, pooled_head, residual_trunk, standardised
from synfer_ray.errors import choose
from synfer_ray.taxonomy.action_units import ACTION_UNITS
from synfer_ray.taxonomy.expressions import EXPRESSIONS


def luminance(images: Tensor) -> Tensor:
    """Weighs RGB images [B, 3, H, W] to one channel [B, 1, H, W] (ITU-R BT.601)."""
    return (images * images.new_tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(1, keepdim=True)


def prepare(images: Tensor, size: int) -> Tensor:
    """Turns images [B, 3, H, W] into standardised luminance [B, 1, size, size], differentiably."""
    grey = F.interpolate(
        luminance(images), size=(size, size), mode="bilinear", antialias=True, align_corners=False
    )
    return standardised(grey, 1, 2, 3)


class ResidualFER(nn.Module):
    """A residual network with squeeze-and-excitation: images [B, 3, H, W] in [-1, 1] -> logits [B, 7]."""

    config: dict[str, Any]

    def __init__(
        self, input_size: int = 48, channels: Sequence[int] = (20, 40, 80, 160), dropout: float = 0.3
    ) -> None:
        super().__init__()
        self.config = {"input_size": input_size, "channels": list(channels), "dropout": dropout}
        self.trunk = residual_trunk(channels)
        self.head = pooled_head(channels[-1], len(EXPRESSIONS), dropout)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits in the order of EXPRESSIONS."""
        return self.head(self.trunk(prepare(images, self.config["input_size"])))


class SeparableFER(nn.Module):
    """Depthwise separable convolutions after Xception: images [B, 3, H, W] in [-1, 1] -> logits [B, 7]."""

    config: dict[str, Any]

    def __init__(
        self, input_size: int = 48, channels: Sequence[int] = (16, 24, 48, 128, 256), dropout: float = 0.3
    ) -> None:
        super().__init__()
        self.config = {"input_size": input_size, "channels": list(channels), "dropout": dropout}
        first, second, *deeper = channels
        stem = [*conv(1, first), *conv(first, second, stride=2)]
        blocks = [SeparableBlock(a, b) for a, b in zip([second, *deeper], deeper)]
        self.trunk = nn.Sequential(*stem, *blocks)
        self.head = pooled_head(channels[-1], len(EXPRESSIONS), dropout)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits in the order of EXPRESSIONS."""
        return self.head(self.trunk(prepare(images, self.config["input_size"])))


class PlainFER(nn.Module):
    """Plain 3x3 convolutions after VGG, with batch norm: images [B, 3, H, W] in [-1, 1] -> logits [B, 7].

    The bundle's guide: no gates and no skips, so its gradient on the pixels is smooth.
    """

    config: dict[str, Any]

    def __init__(
        self,
        input_size: int = 48,
        channels: Sequence[int] = (16, 24, 48, 96),
        hidden: int = 128,
        dropout: float = 0.4,
    ) -> None:
        super().__init__()
        self.config = {
            "input_size": input_size,
            "channels": list(channels),
            "hidden": hidden,
            "dropout": dropout,
        }
        first, *deeper = channels
        layers: list[nn.Module] = [*conv(1, first), nn.MaxPool2d(2)]
        for a, b in zip(channels, deeper):
            layers += [*conv(a, b), *conv(b, b), nn.MaxPool2d(2)]
        cells = (input_size // 2 ** len(channels)) ** 2
        self.trunk = nn.Sequential(*layers)
        self.head = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(channels[-1] * cells, hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, len(EXPRESSIONS)),
        )

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits in the order of EXPRESSIONS."""
        return self.head(self.trunk(prepare(images, self.config["input_size"])))


ARCHITECTURES: dict[str, type[nn.Module]] = {
    "residual": ResidualFER,
    "separable": SeparableFER,
    "plain": PlainFER,
}


class FERClassifier(nn.Module):
    """A network of a named architecture with its temperature: what a bundle stores for each of its experts.

    Args:
        architecture: a key of ARCHITECTURES.
        temperature: divides the logits; see `fit_temperature`.
        settings: keywords of the architecture.
    """

    def __init__(self, architecture: str, temperature: float = 1.0, **settings: Any) -> None:
        super().__init__()
        self.architecture = choose(architecture, ARCHITECTURES, "architecture")
        self.temperature = temperature
        self.network = ARCHITECTURES[architecture](**settings)

    @property
    def config(self) -> dict[str, Any]:
        """The keywords that build this model again."""
        return {
            "architecture": self.architecture,
            "temperature": self.temperature,
            **self.network.config,  # type: ignore[dict-item]
        }

    def forward(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [-1, 1] -> calibrated logits [B, 7] in the order of EXPRESSIONS."""
        return self.network(images) / self.temperature

    def features(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [-1, 1] -> what the last linear layer sees, [B, D]."""
        network: Any = self.network
        return network.head[:-1](network.trunk(prepare(images, network.config["input_size"])))


class ActionUnitNet(nn.Module):
    """Action-unit intensities of a face: images [B, 3, H, W] in [-1, 1] -> [B, 41] in [0, 1].

    Args:
        supported: the action units that training had labels for; `label` leaves the others unknown.
    """

    config: dict[str, Any]
    supported_mask: Tensor

    def __init__(
        self,
        input_size: int = 48,
        channels: Sequence[int] = (20, 40, 80, 160),
        dropout: float = 0.2,
        supported: Sequence[str] = ACTION_UNITS,
    ) -> None:
        super().__init__()
        self.config = {
            "input_size": input_size,
            "channels": list(channels),
            "dropout": dropout,
            "supported": list(supported),
        }
        self.trunk = residual_trunk(channels)
        self.head = pooled_head(channels[-1], len(ACTION_UNITS), dropout)
        mask = torch.tensor([name in supported for name in ACTION_UNITS])
        self.register_buffer("supported_mask", mask, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Returns an intensity for every action unit, in the order of ACTION_UNITS."""
        return self.head(self.trunk(prepare(images, self.config["input_size"]))).sigmoid()

    @torch.inference_mode()
    def label(self, images: Tensor) -> Tensor:
        """Returns intensities [B, 41] with NaN for the action units that training never saw."""
        return self(images).masked_fill(~self.supported_mask, torch.nan)
