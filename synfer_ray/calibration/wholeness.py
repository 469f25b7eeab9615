"""What viewers see in a generated face at a glance: is it whole, and what does it show?"""

from typing import Any

import torch
from torch import Tensor

from synfer_ray.calibration.eyes import EyeMatch
from synfer_ray.calibration.layers import pooled_head
from synfer_ray.calibration.networks import SeparableFER
from synfer_ray.taxonomy.expressions import EXPRESSIONS

READINGS = (*EXPRESSIONS, "unclear")
"""What a viewer may say that a face shows."""


class WholenessNet(SeparableFER):
    """How whole a face looks and, with `reads`, which expression viewers would name.

    Images [B, 3, H, W] in [-1, 1] -> wholeness [B], from 0 (broken) to 1 (whole), and probabilities [B, 8] in
    the order of READINGS, or None. It is a `SeparableFER` with another head, so that it can start from one,
    as ratings are few; and whether the eyes match, which viewers look at first, it sees by itself.
    """

    def __init__(self, reads: bool = False, **config: Any) -> None:
        super().__init__(**config)
        outputs = 1 + len(READINGS) * reads
        self.head = pooled_head(self.config["channels"][-1], outputs, self.config["dropout"])
        self.eyes = EyeMatch()
        self.config["reads"] = reads

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor | None]:  # type: ignore[override]
        """Returns what each face would be rated, on average, and the share of viewers for each reading."""
        logits = self.logits(images)
        return logits[:, 0].sigmoid(), logits[:, 1:].softmax(1) if self.config["reads"] else None

    def logits(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [-1, 1] -> the log odds of a rating, then of the readings [B, 1 or 9]."""
        logits = super().forward(images)
        return torch.cat([logits[:, :1] + self.eyes(images), logits[:, 1:]], 1)
