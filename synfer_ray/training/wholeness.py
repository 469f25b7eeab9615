"""A network that repeats what viewers said of generated faces: whole or broken, happy or sad."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from synfer_ray.calibration.wholeness import WholenessNet
from synfer_ray.storage.weights import save_model
from synfer_ray.training.augment import STEADY_CROP, from_uint8
from synfer_ray.training.experts import face_views
from synfer_ray.training.loop import Arrays, Batch, Objective


class WholenessObjective(Objective):
    """Cross-entropy with the `rating` [B], 0 for a broken face to 1 for a whole one.

    A network that reads learns the viewers' `readings` [B, 8] as well, in the order of READINGS.
    """

    def __init__(self, network: WholenessNet):
        super().__init__()
        self.network = network

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Also reports the mean error of a rating, and how often the network reads what most viewers do."""
        images, rating = from_uint8(batch["image"]), batch["rating"]
        if self.training:
            images = face_views(batch["image"], generator, **STEADY_CROP)[0]
        logits = self.network.logits(images).float()
        loss = F.binary_cross_entropy_with_logits(logits[:, 0], rating)
        metrics = {"mean_error": (logits[:, 0].sigmoid() - rating).abs().mean().item()}
        if self.network.config["reads"]:
            loss = loss + F.cross_entropy(logits[:, 1:], batch["readings"])
            readings, read = batch["readings"], logits[:, 1:].argmax(1, keepdim=True)
            alike = readings.gather(1, read)[:, 0] == readings.amax(1)  # where viewers differ, as one of them
            metrics["read_alike"] = alike.float().mean().item()
        return loss, metrics

    def final_metrics(self, held_out: Arrays, device: torch.device) -> dict[str, float]:
        """How often the better rated of two faces is the one that the network finds more whole."""
        images = torch.from_numpy(held_out["image"]).split(64)
        wholeness = torch.cat([self.network(from_uint8(part.to(device)))[0] for part in images])
        share = ordered_share(wholeness.cpu().numpy(), held_out["rating"])
        return {} if np.isnan(share) else {"validation_ordered": share}

    def export(self, folder: Path) -> None:
        """Writes the network's config.json and model.safetensors, in half precision."""
        save_model(self.network, folder, half=True)


def ordered_share(scores: np.ndarray, ratings: np.ndarray) -> float:
    """The share of pairs of unequal `ratings` [N] in the same order by `scores` [N]; ties count half."""
    better = ratings[:, None] > ratings[None]
    ahead = np.sign(scores[:, None] - scores[None]) / 2 + 0.5
    return float(ahead[better].mean()) if better.any() else float("nan")
