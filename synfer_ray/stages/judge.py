"""The judge looks at finished samples: a classifier that neither guided nor voted, and a face landmarker."""

from typing import Any

import numpy as np

from synfer_ray.calibration.experts import load_expert
from synfer_ray.config import EvaluateConfig
from synfer_ray.errors import InputError
from synfer_ray.faces.images import decode_image, resize_square, square_pixels
from synfer_ray.faces.landmarks import FaceLandmarker
from synfer_ray.faces.preparation import cut_out
from synfer_ray.taxonomy.action_units import ACTION_UNITS

Columns = dict[str, Any]


class Judge:
    """A Ray actor: what the classifier says of each sample, and which action units the landmarker finds.

    Raises:
        InputError: a model is missing, damaged or described wrongly.
    """

    def __init__(self, config: EvaluateConfig):
        if config.judge.crop and not config.landmarker_model:
            raise InputError(f"crop={config.judge.crop} of the judge needs landmarker_model")
        self.expert = load_expert(config.judge)
        self.crop = config.judge.crop
        self.landmarker = FaceLandmarker(config.landmarker_model) if config.landmarker_model else None
        self.image_size = config.image_size

    def __call__(self, batch: Columns) -> Columns:
        """Returns the columns `assigned_label`, `label`, `judged`; `requested` and `found` action units."""
        images = [resize_square(decode_image(image["bytes"]), self.image_size) for image in batch["image"]]
        unknown = np.full(len(ACTION_UNITS), np.nan, np.float32)
        readings = [self.landmarker.read(image) if self.landmarker else None for image in images]
        faces = [
            cut_out(image, reading, self.crop, self.image_size) for image, reading in zip(images, readings)
        ]
        pixels = np.stack([square_pixels(face, self.image_size) for face in faces])
        return {
            "assigned_label": batch["assigned_label"],
            "label": batch["label"],
            "judged": self.expert.predict(pixels).argmax(axis=1),
            "requested": np.stack(batch["action_units"]).astype(np.float32),
            "found": np.stack([reading.action_units if reading else unknown for reading in readings]),
        }
