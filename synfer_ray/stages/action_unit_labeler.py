"""Labels action units with the bundle's own network."""

import numpy as np
import pyarrow as pa
import torch

from synfer_ray.calibration.networks import ActionUnitNet
from synfer_ray.faces.images import decode_image
from synfer_ray.stages.face_rows import Row, face_rows, face_table
from synfer_ray.storage.weights import load_model


class ActionUnitLabeler:
    """A stage: writes `action_units` of the rows that are not rejected, whatever they held before.

    Args:
        folder: the `au_labeler` folder of a bundle.

    Raises:
        InputError: the model files are missing or damaged.
    """

    def __init__(self, folder: str):
        self.network = load_model(ActionUnitNet, folder)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Labels the rows, which hold images of one size."""
        rows = face_rows(table)
        accepted = [row for row in rows if row["reason"] is None]
        if accepted:
            self._label(accepted)
        return face_table(rows)

    def _label(self, rows: list[Row]) -> None:
        pixels = np.stack([np.asarray(decode_image(row["image"])) for row in rows])
        images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 127.5 - 1
        for row, intensities in zip(rows, self.network.label(images).numpy()):
            row["action_units"] = intensities
