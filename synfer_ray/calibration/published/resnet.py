"""ResNet trunks (He et al. 2016) with torchvision's key names."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a skip: [B, inputs, H, W] -> [B, planes, H / stride, W / stride]."""

    expansion = 1

    def __init__(self, inputs: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.downsample = _projection(inputs, planes, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Applies the block."""
        skip = self.downsample(x) if self.downsample else x
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(skip + self.bn2(self.conv2(y)))


class Bottleneck(nn.Module):
    """Convolutions 1x1, 3x3 and 1x1, and a skip: [B, C, H, W] -> [B, 4 planes, H / stride, W / stride]."""

    expansion = 4

    def __init__(self, inputs: int, planes: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv3 = nn.Conv2d(planes, planes * self.expansion, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(planes * self.expansion)
        self.downsample = _projection(inputs, planes * self.expansion, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Applies the block."""
        skip = self.downsample(x) if self.downsample else x
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(skip + self.bn3(self.conv3(y)))


Block = type[BasicBlock] | type[Bottleneck]


class ResNet(nn.Module):
    """The trunk without its classifier: [B, 3, 224, 224] -> tokens [B, 49, channels], row by row.

    Args:
        block: BasicBlock for ResNet-18 and 34, Bottleneck for 50 and deeper.
        depths: blocks in each of the four stages.
    """

    def __init__(self, block: Block, depths: Sequence[int]) -> None:
        super().__init__()
        self.channels = 512 * block.expansion
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        self.layer1 = residual_stage(block, 64, 64, depths[0], stride=1)
        self.layer2 = residual_stage(block, 64 * block.expansion, 128, depths[1])
        self.layer3 = residual_stage(block, 128 * block.expansion, 256, depths[2])
        self.layer4 = residual_stage(block, 256 * block.expansion, 512, depths[3])

    def forward(self, pixels: Tensor) -> Tensor:
        """Returns the tokens of the last feature map."""
        x = self.maxpool(F.relu(self.bn1(self.conv1(pixels))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x.flatten(2).transpose(1, 2)


def residual_stage(block: Block, inputs: int, planes: int, depth: int, stride: int = 2) -> nn.Sequential:
    """Returns `depth` blocks, of which the first one changes resolution and width."""
    rest = (block(planes * block.expansion, planes) for _ in range(depth - 1))
    return nn.Sequential(block(inputs, planes, stride), *rest)


def _projection(inputs: int, outputs: int, stride: int) -> nn.Sequential | None:
    if inputs == outputs and stride == 1:
        return None
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
