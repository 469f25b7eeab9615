"""MobileFaceNet (Chen et al. 2018) as POSTER++ uses it: the landmark trunk, without its landmark output."""

from torch import Tensor, nn


class ConvBlock(nn.Module):
    """Convolution, batch norm and, unless `linear`, PReLU."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 1,
        stride: int = 1,
        groups: int = 1,
        linear: bool = False,
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(outputs)
        self.prelu = None if linear else nn.PReLU(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H / stride, W / stride]."""
        x = self.bn(self.conv(x))
        return self.prelu(x) if self.prelu else x


class DepthWise(nn.Module):
    """An inverted residual block; with stride 1 it has a skip."""

    def __init__(self, inputs: int, outputs: int, inner: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = ConvBlock(inputs, inner)
        self.conv_dw = ConvBlock(inner, inner, kernel=3, stride=stride, groups=inner)
        self.project = ConvBlock(inner, outputs, linear=True)
        self.skip = stride == 1

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H / stride, W / stride]."""
        y = self.project(self.conv_dw(self.conv(x)))
        return x + y if self.skip else y


class Residual(nn.Module):
    """`count` blocks of one width and resolution."""

    def __init__(self, width: int, count: int, inner: int) -> None:
        super().__init__()
        self.model = nn.Sequential(*(DepthWise(width, width, inner) for _ in range(count)))

    def forward(self, x: Tensor) -> Tensor:
        """Applies the blocks."""
        return self.model(x)


class MobileFaceNet(nn.Module):
    """Landmark features of faces: [B, 3, 112, 112] -> 64 channels at 28, 128 at 14 and 512 at 7 places."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = ConvBlock(3, 64, kernel=3, stride=2)
        self.conv2_dw = ConvBlock(64, 64, kernel=3, groups=64)
        self.conv_23 = DepthWise(64, 64, 128, stride=2)
        self.conv_3 = Residual(64, 4, 128)
        self.conv_34 = DepthWise(64, 128, 256, stride=2)
        self.conv_4 = Residual(128, 6, 256)
        self.conv_45 = DepthWise(128, 128, 512, stride=2)
        self.conv_5 = Residual(128, 2, 256)
        self.conv_6_sep = ConvBlock(128, 512)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the features of the three resolutions."""
        fine = self.conv_3(self.conv_23(self.conv2_dw(self.conv1(pixels))))
        middle = self.conv_4(self.conv_34(fine))
        return fine, middle, self.conv_6_sep(self.conv_5(self.conv_45(middle)))
