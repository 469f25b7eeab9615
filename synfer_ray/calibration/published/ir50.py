"""The first three stages of IR-50, a face-recognition trunk (Deng et al. 2019), for POSTER++ and APViT."""

from torch import Tensor, nn

UNITS = ((64, 64, 3), (64, 128, 4), (128, 256, 14))
"""Input channels, output channels and number of residual units of each stage."""


class ResidualUnit(nn.Module):
    """Batch norm, two 3x3 convolutions with a PReLU between, and a skip without activation."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.shortcut_layer = (
            nn.MaxPool2d(1, stride)
            if inputs == outputs
            else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
        )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(inputs),
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
            nn.PReLU(outputs),
            nn.Conv2d(outputs, outputs, 3, stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H / stride, W / stride]."""
        return self.shortcut_layer(x) + self.res_layer(x)


def input_layer() -> nn.Sequential:
    """Returns the stem: [B, 3, 112, 112] -> [B, 64, 112, 112]."""
    return nn.Sequential(nn.Conv2d(3, 64, 3, padding=1, bias=False), nn.BatchNorm2d(64), nn.PReLU(64))


def stage(index: int) -> nn.Sequential:
    """Returns stage 0, 1 or 2, each of which halves the side: 56, 28 and 14 places."""
    inputs, outputs, count = UNITS[index]
    rest = (ResidualUnit(outputs, outputs, 1) for _ in range(count - 1))
    return nn.Sequential(ResidualUnit(inputs, outputs, 2), *rest)
