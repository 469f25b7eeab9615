"""A network that repeats what people said of generated faces: whole or broken."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import torch
import torch.nn.functional as F
from torch import Tensor

from synfer_ray.calibration.wholeness import WholenessNet
from synfer_ray.errors import InputError
from synfer_ray.storage.weights import save_model
from synfer_ray.training.augment import from_uint8
from synfer_ray.training.data import decode_rows, read_columns
from synfer_ray.training.experts import face_views
from synfer_ray.training.loop import Arrays, Batch, Objective

if TYPE_CHECKING:
    import ray.data


class WholenessObjective(Objective):
    """Cross-entropy with the `rating` [B], 0 for a broken face to 1 for a whole one."""

    def __init__(self, network: WholenessNet):
        super().__init__()
        self.network = network

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Also reports the mean error of a rating."""
        images, rating = from_uint8(batch["image"]), batch["rating"]
        if self.training:
            images = face_views(batch["image"], generator)[0]
        wholeness = self.network(images).float()
        loss = F.binary_cross_entropy(wholeness.clamp(1e-4, 1 - 1e-4), rating)
        return loss, {"mean_error": (wholeness - rating).abs().mean().item()}

    def final_metrics(self, held_out: Arrays, device: torch.device) -> dict[str, float]:
        """How often the better rated of two faces is the one that the network finds more whole."""
        images = torch.from_numpy(held_out["image"]).split(64)
        wholeness = torch.cat([self.network(from_uint8(part.to(device))) for part in images])
        return {"validation_ordered": ordered_share(wholeness.cpu().numpy(), held_out["rating"])}

    def export(self, folder: Path) -> None:
        """Writes the network's config.json and model.safetensors, in half precision."""
        save_model(self.network, folder, half=True)


def ordered_share(scores: np.ndarray, ratings: np.ndarray) -> float:
    """The share of pairs of unequal `ratings` [N] in the same order by `scores` [N]; ties count half."""
    better = ratings[:, None] > ratings[None]
    ahead = np.sign(scores[:, None] - scores[None]) / 2 + 0.5
    return float(ahead[better].mean()) if better.any() else float("nan")


def read_rated(dataset: str, ratings: str) -> "ray.data.Dataset":
    """The rated images of a generated dataset: `sample_id`, `image` uint8 [H,W,3] and `rating`.

    Args:
        dataset: the folder that `synfer generate` wrote.
        ratings: a CSV file with the columns `sample_id` and `rating`, from 0 (broken) to 1 (whole).

    Raises:
        InputError: the file is missing or not of this form, a rating is not in [0, 1], or a sample is rated
            twice or is not in the dataset.
    """
    import ray.data

    try:
        rated = pyarrow.csv.read_csv(ratings).select(["sample_id", "rating"])
        rated = rated.cast(pa.schema([("sample_id", pa.string()), ("rating", pa.float32())]))
    except (OSError, pa.ArrowException, KeyError) as error:
        raise InputError(f"ratings={ratings}: columns sample_id and rating are needed: {error}") from error
    values = rated["rating"].to_numpy()
    if not (len(values) and ((values >= 0) & (values <= 1)).all()):
        raise InputError(f"ratings={ratings}: every rating is a number from 0 (broken) to 1 (whole)")
    names = rated["sample_id"].to_pylist()
    if len(set(names)) < len(names):
        raise InputError(f"ratings={ratings} rates a sample twice")
    images = read_columns(dataset, ["sample_id", "image"])
    images = images.filter(pc.is_in(images["sample_id"], rated["sample_id"]))
    if len(images) < len(rated):
        unknown = set(names).difference(images["sample_id"].to_pylist())
        raise InputError(f"ratings={ratings}: {len(unknown)} are not in {dataset}, as {min(unknown)}")
    table = images.sort_by("sample_id").append_column("rating", rated.sort_by("sample_id")["rating"])
    columns = ["sample_id", "image", "rating"]
    return ray.data.from_arrow(table).map_batches(lambda batch: decode_rows(batch, columns))
