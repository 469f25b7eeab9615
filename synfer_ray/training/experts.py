"""The small experts: expression classifiers on soft labels, and the action-unit labeller."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synfer_ray.calibration.temperature import fit_temperature
from synfer_ray.storage.weights import save_model
from synfer_ray.taxonomy.action_units import ACTION_UNITS, LEFT_RIGHT
from synfer_ray.training.augment import (
    LOOSE_CROP,
    from_uint8,
    random_affine,
    random_flip,
    random_light,
)
from synfer_ray.training.loop import Arrays, Batch, Objective


class ExpressionObjective(Objective):
    """Cross-entropy with the annotators' vote distribution `label_probs` [B,7], rare expressions weighted up.

    Args:
        class_share: share of each expression among the training labels [7].
    """

    weight: Tensor

    def __init__(self, network: nn.Module, class_share: np.ndarray):
        super().__init__()
        self.network: Any = network
        self.register_buffer("weight", class_weight(class_share), persistent=False)

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Weighted soft cross-entropy; also reports the accuracy against the most voted expression."""
        images = from_uint8(batch["image"])
        if self.training:  # voters also meet faces that nobody aligned
            images = face_views(batch["image"], generator, **LOOSE_CROP)[0]
        return balanced_cross_entropy(self.network(images), batch["label_probs"], self.weight)

    def final_metrics(self, held_out: Arrays, device: torch.device) -> dict[str, float]:
        """The temperature that calibrates the probabilities."""
        images = torch.from_numpy(held_out["image"]).split(64)
        logits = torch.cat([self.network(from_uint8(part.to(device))) for part in images])
        return {"temperature": fit_temperature(logits.cpu().numpy(), held_out["label_probs"].argmax(1))}

    def adopt(self, metrics: Mapping[str, float]) -> None:
        """Gives the network its temperature."""
        self.network.temperature = metrics["temperature"]

    def export(self, folder: Path) -> None:
        """Writes the network's config.json and model.safetensors, in half precision."""
        save_model(self.network, folder, half=True)


class ActionUnitObjective(Objective):
    """Regression of the known `action_units` [B,41]; unknown ones (NaN) do not count."""

    mirror: Tensor

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.register_buffer("mirror", torch.tensor(mirrored_indices()), persistent=False)

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Binary cross-entropy with the intensity as soft target."""
        images, target = from_uint8(batch["image"]), batch["action_units"]
        if self.training:
            images, flipped = face_views(batch["image"], generator)
            target = torch.where(flipped[:, None], target[:, self.mirror], target)
        known = ~target.isnan()
        intensities = self.network(images)
        losses = F.binary_cross_entropy(
            intensities.clamp(1e-4, 1 - 1e-4), target.nan_to_num(), reduction="none"
        )
        error = ((intensities - target.nan_to_num()).abs() * known).sum() / known.sum()
        return (losses * known).sum() / known.sum(), {"mean_error": error.item()}

    def export(self, folder: Path) -> None:
        """Writes the network's config.json and model.safetensors, in half precision."""
        save_model(self.network, folder, half=True)


def class_weight(class_share: np.ndarray) -> Tensor:
    """Weights [7] that grow with the square root of a class's rarity and average to one over the data."""
    balance = np.sqrt(1.0 / np.maximum(class_share, 1e-3))
    return torch.tensor(balance / (balance * class_share).sum(), dtype=torch.float32)


def balanced_cross_entropy(logits: Tensor, target: Tensor, weight: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Soft cross-entropy, rows weighted by their expected class weight; accuracy against the top vote."""
    losses = F.cross_entropy(logits, target, reduction="none")
    accuracy = (logits.argmax(1) == target.argmax(1)).float().mean()
    return (target @ weight * losses).mean(), {"accuracy": accuracy.item()}


def face_views(images: Tensor, generator: torch.Generator, **crop: float) -> tuple[Tensor, Tensor]:
    """Random views [B,3,H,W] of uint8 faces [B,H,W,3], and which of them are mirrored [B].

    Args:
        crop: limits of `random_affine`.
    """
    views, flipped = random_flip(from_uint8(images), generator)
    return random_light(random_affine(views, generator, **crop), generator), flipped


def mirrored_indices() -> list[int]:
    """For each action unit the index of its mirror image: left and right change places."""
    mirror = {name: name for name in ACTION_UNITS}
    for left, right in LEFT_RIGHT.values():
        mirror |= {left: right, right: left}
    return [ACTION_UNITS.index(mirror[name]) for name in ACTION_UNITS]
