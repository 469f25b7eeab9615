"""The expert classifiers look at each image: their probabilities become the columns `voter_<name>`."""

import io

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from synfer_ray.calibration.experts import load_expert
from synfer_ray.config import GenerateConfig
from synfer_ray.diffusion.sampling import pad_batch
from synfer_ray.stages.sample_rows import accepted, sample_rows
from synfer_ray.storage.bundle import FERANNO, expert_spec, find_bundle
from synfer_ray.storage.schema import VOTER


class Voter:
    """A Ray actor that holds all experts, in batches of one size, so that no row depends on its neighbours.

    Raises:
        InputError: a model is missing, damaged or described wrongly.
    """

    def __init__(self, config: GenerateConfig):
        torch.set_num_threads(config.num_threads)
        bundle = find_bundle(config.bundle)
        names = [name for name in config.voters if name != FERANNO]
        self.experts = [load_expert(expert_spec(name, bundle, config.experts)) for name in names]
        self.voters = config.voters
        self.batch_size = config.batch_size

    def __call__(self, table: pa.Table) -> pa.Table:
        """Adds the votes on the rows that are not rejected."""
        rows = table.to_pylist()
        alive = accepted(rows)
        for first in range(0, len(alive), self.batch_size):
            batch = alive[first : first + self.batch_size]
            images = np.stack([pixels(row["image"]["bytes"]) for row in pad_batch(batch, self.batch_size)])
            for expert in self.experts:
                for row, vote in zip(batch, expert.predict(images)):
                    row[f"{VOTER}{expert.name}"] = vote.tolist()
        return sample_rows(rows, self.voters)


def pixels(image: bytes) -> np.ndarray:
    """Decodes an image to float32 [3, H, W] in [-1, 1]."""
    array = np.asarray(Image.open(io.BytesIO(image)).convert("RGB"), dtype=np.float32)
    return np.ascontiguousarray(array.transpose(2, 0, 1)) / 127.5 - 1
