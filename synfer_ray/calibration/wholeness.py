"""Whether a generated face is whole: what one sees at a glance and no voter is asked."""

from typing import Any

from torch import Tensor

from synfer_ray.calibration.layers import pooled_head
from synfer_ray.calibration.networks import SeparableFER


class WholenessNet(SeparableFER):
    """How whole a face looks: images [B, 3, H, W] in [-1, 1] -> [B], from 0 (broken) to 1 (whole).

    It is a `SeparableFER` with another head, so that it can start from one: ratings are few.
    """

    def __init__(self, **config: Any) -> None:
        super().__init__(**config)
        self.head = pooled_head(self.config["channels"][-1], 1, self.config["dropout"])

    def forward(self, images: Tensor) -> Tensor:
        """Returns the rating that each face would get, on average."""
        return self.logits(images).sigmoid()

    def logits(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [-1, 1] -> the log odds of a rating [B]."""
        return super().forward(images).squeeze(1)
