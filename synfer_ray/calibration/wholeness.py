"""Whether a generated face is whole: what one sees at a glance and no voter is asked."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from synfer_ray.calibration.layers import pooled_head, separable_trunk
from synfer_ray.calibration.networks import prepare


class WholenessNet(nn.Module):
    """How whole a face looks: images [B, 3, H, W] in [-1, 1] -> [B], from 0 (broken) to 1 (whole).

    It has the trunk of a `SeparableFER`, so that it can start from one: ratings are few.
    """

    config: dict[str, Any]

    def __init__(
        self, input_size: int = 48, channels: Sequence[int] = (16, 24, 48, 128, 256), dropout: float = 0.3
    ) -> None:
        super().__init__()
        self.config = {"input_size": input_size, "channels": list(channels), "dropout": dropout}
        self.trunk = separable_trunk(channels)
        self.head = pooled_head(channels[-1], 1, dropout)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the rating that each face would get, on average."""
        return self.logits(images).sigmoid()

    def logits(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [-1, 1] -> the log odds of a rating [B]."""
        return self.head(self.trunk(prepare(images, self.config["input_size"]))).squeeze(1)
