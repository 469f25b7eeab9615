"""A generator of known cost: it waits instead of computing, and its images have the size of real ones."""

import io
import time

import numpy as np
import pyarrow as pa
from PIL import Image

from synfer_ray.config import GenerateConfig
from synfer_ray.stages.sample_rows import GENERATE, sample_rows, timed
from synfer_ray.storage.bundle import FERANNO
from synfer_ray.storage.schema import VOTER
from synfer_ray.taxonomy.expressions import EXPRESSIONS

PICTURES = 64
GREY_LEVELS = 8
"""Of the noise in a picture: a PNG of 64 x 64 pixels takes 6 KB, as a face of `fer64` does."""


def stand_in(seconds_per_image: float, image_size: int) -> type:
    """Returns a stage in place of `ImageGenerator`: every image takes a fixed time of one actor, and no CPU.

    FERAnno's vote in it is for the planned expression.
    """

    class StandInGenerator:
        def __init__(self, config: GenerateConfig):
            self.config = config
            self.pictures = [noise_picture(number, image_size) for number in range(PICTURES)]

        def __call__(self, table: pa.Table) -> pa.Table:
            ready = time.monotonic() + seconds_per_image * table.num_rows
            rows = table.to_pylist()
            with timed(rows, GENERATE):
                for row in rows:
                    picture = self.pictures[row["index"] % PICTURES]
                    row["image"] = {"bytes": picture, "path": f"{row['sample_id']}.png"}
                    row["guidance_skipped"] = 0
                    row[f"{VOTER}{FERANNO}"] = np.eye(len(EXPRESSIONS))[row["assigned_label"]].tolist()
                time.sleep(max(0.0, ready - time.monotonic()))
            return sample_rows(rows, self.config.voters)

    return StandInGenerator


def noise_picture(number: int, side: int) -> bytes:
    """Returns a PNG of `side` x `side` pixels of noise, the same for the same number."""
    levels = np.random.default_rng(number).integers(GREY_LEVELS, size=(side, side, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(levels * (255 // GREY_LEVELS)).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()
