"""Labels action units with a network: the bundle's own, or OpenGraphAU's."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from synfer_ray.calibration.networks import ActionUnitNet
from synfer_ray.calibration.published.open_graph_au import AMBIGUOUS_UNITS, load_open_graph_au
from synfer_ray.config import FETextConfig
from synfer_ray.faces.images import decode_image
from synfer_ray.stages.face_rows import Row, face_rows, face_table
from synfer_ray.stages.model_stage import model_stage
from synfer_ray.storage.weights import load_model
from synfer_ray.taxonomy.action_units import ACTION_UNITS

BATCH_SIZE = 16


@model_stage
class ActionUnitLabeler:
    """A stage: writes `action_units` of the rows that are not rejected, whatever they held before.

    Args:
        path: the `au_labeler` folder of a bundle, or a checkpoint of OpenGraphAU.

    Raises:
        InputError: the model files are missing, damaged or not what they should be.
    """

    def __init__(self, config: FETextConfig, path: str):
        self.device = "cuda" if config.face_pool.num_gpus else "cpu"
        network = load_model(ActionUnitNet, path) if Path(path).is_dir() else load_open_graph_au(path)
        self.network = network.to(self.device)
        dropped = AMBIGUOUS_UNITS if config.ambiguous_units == "unknown" else ()
        self.unknown = [ACTION_UNITS.index(name) for name in dropped]

    def __call__(self, table: pa.Table) -> pa.Table:
        """Labels the rows, which hold images of one size."""
        rows = face_rows(table)
        accepted = [row for row in rows if row["reason"] is None]
        for first in range(0, len(accepted), BATCH_SIZE):
            self._label(accepted[first : first + BATCH_SIZE])
        return face_table(rows)

    def _label(self, rows: list[Row]) -> None:
        pixels = np.stack([np.asarray(decode_image(row["image"])) for row in rows])
        images = torch.from_numpy(pixels).to(self.device).permute(0, 3, 1, 2) / 127.5 - 1
        for row, intensities in zip(rows, self.network.label(images).cpu().numpy()):
            intensities[self.unknown] = np.nan
            row["action_units"] = intensities
