"""What a published network expects its pixels to be: size, crop and scaling."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Pixels(nn.Module):
    """Resizes, crops and scales images, differentiably: [B, 3, H, W] in [-1, 1] -> [B, 3, h, w].

    Args:
        size: of the resized image: one number for its shorter side, two for height and width; None leaves it.
        crop: height and width of the central crop; None leaves it.
        mean: subtracted from pixels in [0, 1], one value a channel.
        std: divides what remains.
        mode: interpolation, `bilinear`, `bicubic` or `nearest`; the first two are antialiased.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        size: int | tuple[int, int] | None,
        crop: tuple[int, int] | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        mode: str = "bilinear",
    ) -> None:
        super().__init__()
        self.size, self.crop, self.mode = size, crop, mode
        self.register_buffer("mean", _channels(mean), persistent=False)
        self.register_buffer("std", _channels(std), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the pixels that the network sees."""
        pixels = images / 2 + 0.5
        if (target := self._target(images)) != tuple(images.shape[-2:]):
            smooth = {} if self.mode == "nearest" else {"antialias": True, "align_corners": False}
            pixels = F.interpolate(pixels, size=target, mode=self.mode, **smooth)
        if self.crop:
            (height, width), (crop_height, crop_width) = pixels.shape[-2:], self.crop
            top, left = round((height - crop_height) / 2), round((width - crop_width) / 2)
            pixels = pixels[..., top : top + crop_height, left : left + crop_width]
        return (pixels - self.mean) / self.std

    def _target(self, images: Tensor) -> tuple[int, int]:
        height, width = images.shape[-2:]
        if self.size is None:
            return height, width
        if isinstance(self.size, tuple):
            return self.size
        scale = self.size / min(height, width)
        return max(round(height * scale), self.size), max(round(width * scale), self.size)


def _channels(values: Sequence[float]) -> Tensor:
    return torch.tensor(list(values), dtype=torch.float32).view(-1, 1, 1)
