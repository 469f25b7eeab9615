"""The experts look at each image: their probabilities become the columns `voter_<name>`."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch

from synfer_ray.calibration.experts import Expert, load_expert
from synfer_ray.config import CalibrateConfig, GenerateConfig
from synfer_ray.faces.images import BadImage, decode_image, resize_square
from synfer_ray.stages.model_stage import model_stage
from synfer_ray.stages.sample_rows import Row, accepted, device_batches, rejection, sample_rows
from synfer_ray.storage.bundle import FERANNO, bundle_image_size, expert_spec, find_bundle
from synfer_ray.storage.schema import VOTER


@model_stage
class Voter:
    """A Ray actor that holds experts and asks them in batches of one size: no row depends on its neighbours.

    Args:
        names: which of the run's voters to ask; FERAnno among them reads the finished image.

    Raises:
        InputError: a model is missing, damaged or described wrongly.
    """

    def __init__(self, config: GenerateConfig | CalibrateConfig, names: Sequence[str]):
        torch.set_num_threads(config.num_threads)
        bundle = find_bundle(config.bundle)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        specs = [expert_spec(name, bundle, config.experts) for name in names if name != FERANNO]
        self.experts: list[Expert] = [load_expert(spec, device) for spec in specs]
        if FERANNO in names:
            from synfer_ray.calibration.feranno import load_annotator
            from synfer_ray.diffusion.components import load_components

            self.experts.append(load_annotator(load_components(bundle, device)))
        self.voters = config.voters
        self.batch_size = config.batch_size
        self.image_size = config.image_size or bundle_image_size(bundle)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Adds the votes on the rows that are not rejected; an image that cannot be read rejects its row."""
        rows = table.to_pylist()
        images = {row["index"]: self.look(row) for row in accepted(rows)}
        for group, batch in device_batches(accepted(rows), self.batch_size):
            pixels = np.stack([images[row["index"]] for row in batch])
            for expert in self.experts:
                votes = expert.predict(pixels)
                for row in group:
                    row[f"{VOTER}{expert.name}"] = votes[row["index"] % self.batch_size].tolist()
        return sample_rows(rows, self.voters)

    def look(self, row: Row) -> np.ndarray:
        """Returns the image as float32 [3, H, W] in [-1, 1]; rejects the row if there is none."""
        try:
            image = resize_square(decode_image(row["image"]["bytes"]), self.image_size)
        except BadImage as error:
            row |= rejection("decode", error.reason, error.detail) | {"image": None}
            return np.empty(0)
        return np.ascontiguousarray(np.asarray(image, dtype=np.float32).transpose(2, 0, 1)) / 127.5 - 1
