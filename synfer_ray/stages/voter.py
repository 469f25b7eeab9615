"""The experts look at each image: their probabilities become the columns `voter_<name>`."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import torch

from synfer_ray.calibration.experts import Expert, load_expert
from synfer_ray.config import CalibrateConfig, ExpertConfig, GenerateConfig, ServeConfig
from synfer_ray.errors import InputError, choose
from synfer_ray.faces.alignment import CROPS
from synfer_ray.faces.images import BadImage, decode_image, square_pixels
from synfer_ray.faces.preparation import FacePreparation, cut_out
from synfer_ray.stages.attempts import Attempts
from synfer_ray.stages.model_stage import model_stage
from synfer_ray.stages.sample_rows import VOTE, Row, accepted, rejection, sample_rows, timed
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

    def __init__(self, config: GenerateConfig | CalibrateConfig | ServeConfig, names: Sequence[str]):
        torch.set_num_threads(config.num_threads)
        bundle = find_bundle(config.bundle)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        specs = [expert_spec(name, bundle, config.experts) for name in names if name != FERANNO]
        self.experts: list[Expert] = [load_expert(spec, device) for spec in specs]
        self.crops = [spec.crop for spec in specs]
        self.preparation = open_preparation(config, specs)
        if FERANNO in names:
            from synfer_ray.calibration.feranno import load_annotator
            from synfer_ray.diffusion.components import load_components

            self.experts.append(load_annotator(load_components(bundle, device)))
            self.crops.append("")
        self.attempts = Attempts(getattr(config, "output", ""), VOTE)
        self.voters = config.voters
        self.batch_size = config.batch_size
        self.image_size = config.image_size or bundle_image_size(bundle)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Adds the votes on the rows that are not rejected; an image that cannot be read rejects its row."""
        rows = table.to_pylist()
        with timed(rows, VOTE):
            images = {row["index"]: self.look(row) for row in accepted(rows)}
            for group, batch in self.attempts.batches(accepted(rows), self.batch_size):
                for expert, crop in zip(self.experts, self.crops):
                    votes = expert.predict(np.stack([images[row["index"]][crop] for row in batch]))
                    for row in group:
                        row[f"{VOTER}{expert.name}"] = votes[row["index"] % self.batch_size].tolist()
        return sample_rows(rows, self.voters)

    def look(self, row: Row) -> dict[str, np.ndarray]:
        """Returns the image for each crop that an expert expects, float32 [3, H, W] in [-1, 1].

        The row is rejected if there is no image, or none of the faces in it counts.
        """
        try:
            image = decode_image(row["image"]["bytes"])
        except BadImage as error:
            row |= rejection("decode", error.reason, error.detail) | {"image": None}
            return {}
        try:
            reading = self.preparation.find(image) if self.preparation else None
        except BadImage as error:
            row |= rejection(VOTE, error.reason, error.detail)
            return {}
        faces = {crop: cut_out(image, reading, crop, self.image_size) for crop in set(self.crops)}
        return {crop: square_pixels(face, self.image_size) for crop, face in faces.items()}


def open_preparation(
    config: GenerateConfig | CalibrateConfig | ServeConfig, specs: Sequence[ExpertConfig]
) -> FacePreparation | None:
    """Opens the face landmarker if an expert expects a crop.

    Raises:
        InputError: the crop is unknown, or the landmarker is not set or does not load.
    """
    cropped = [spec for spec in specs if spec.crop]
    if not cropped:
        return None
    for spec in cropped:
        choose(spec.crop, CROPS, f"crop of expert {spec.name}")
    if isinstance(config, ServeConfig):
        raise InputError(
            f"crop={cropped[0].crop} of expert {cropped[0].name}: a service judges faces as sent"
        )
    faces = config.faces
    if not faces.landmarker_model:
        raise InputError(f"crop={cropped[0].crop} of expert {cropped[0].name} needs faces.landmarker_model")
    return FacePreparation(faces.landmarker_model, faces.no_face, faces.many_faces)
