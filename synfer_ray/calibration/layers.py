"""Building blocks of the small image networks."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def residual_trunk(channels: Sequence[int]) -> nn.Sequential:
    """A stem and a pool, then one residual block per entry of `channels`, halving the size between them."""
    first, *deeper = channels
    stem = [*conv(1, first), nn.MaxPool2d(2), ResidualBlock(first, first)]
    return nn.Sequential(*stem, *(ResidualBlock(a, b, stride=2) for a, b in zip(channels, deeper)))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, a squeeze-and-excitation gate on their output, and a skip."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *conv(inputs, outputs, stride=stride),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(outputs, outputs // 4, 1),
            nn.ReLU(),
            nn.Conv2d(outputs // 4, outputs, 1),
            nn.Sigmoid(),
        )
        self.skip = nn.Identity() if inputs == outputs and stride == 1 else _project(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H / stride, W / stride]."""
        y = self.body(x)
        return F.relu(self.skip(x) + self.gate(y) * y)


class SeparableBlock(nn.Module):
    """Two depthwise separable convolutions and a max pool, with a strided 1x1 skip."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_separable(inputs, outputs),
            nn.ReLU(),
            *_separable(outputs, outputs),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.skip = _project(inputs, outputs, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H / 2, W / 2]."""
        return F.relu(self.skip(x) + self.body(x))


def conv(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
    """A 3x3 convolution with batch norm and ReLU."""
    convolution = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
    return [convolution, nn.BatchNorm2d(outputs), nn.ReLU()]


def standardised(values: Tensor, *dims: int) -> Tensor:
    """Takes the mean over `dims` away and divides by the standard deviation there."""
    variance, mean = torch.var_mean(values, dim=dims, correction=0, keepdim=True)
    return (values - mean) * torch.rsqrt(variance + 1e-4)


def pooled_head(channels: int, outputs: int, dropout: float) -> nn.Sequential:
    """Global average, dropout and a linear layer: [B, channels, H, W] -> [B, outputs]."""
    return nn.Sequential(
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(channels, outputs)
    )


def _separable(inputs: int, outputs: int) -> list[nn.Module]:
    depthwise = nn.Conv2d(inputs, inputs, 3, padding=1, groups=inputs, bias=False)
    return [depthwise, nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]


def _project(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))
