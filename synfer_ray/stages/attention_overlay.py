"""Where FERAnno looked (paper Fig. 7): attention maps leave the actor as a few small pictures."""

import io

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from synfer_ray.calibration.feranno import Annotation
from synfer_ray.reporting.overlays import heat_overlay
from synfer_ray.reporting.report import OVERLAYS
from synfer_ray.stages.sample_rows import Row
from synfer_ray.storage.locations import Location, filesystem, write_bytes
from synfer_ray.taxonomy.expressions import EXPRESSIONS

SIDE = 192


def attention_of(annotation: Annotation, place: int) -> np.ndarray:
    """Returns where the attention of one row lies [H, W]: the mean over words, and over resolutions."""
    side = max(annotation.attention)
    maps = [grids[place : place + 1].mean(1, keepdim=True) for grids in annotation.attention.values()]
    enlarged = [interpolate(map_, size=(side, side), mode="bilinear") for map_ in maps]
    return torch.cat([map_ / map_.mean() for map_ in enlarged]).mean(0)[0].cpu().numpy()


def write_overlay(output: Location, row: Row, attention: np.ndarray) -> None:
    """Writes a row's image, and beside it the image under its attention, to the output's overlays."""
    fs, root = filesystem(output)
    image = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
    side = max(SIDE, image.width)
    image = image.resize((side, side), Image.Resampling.LANCZOS)
    pair = Image.new("RGB", (2 * side, side))
    pair.paste(image, (0, 0))
    pair.paste(heat_overlay(image, attention), (side, 0))
    buffer = io.BytesIO()
    pair.save(buffer, "PNG")
    expression = row["compound"] or EXPRESSIONS[row["assigned_label"]]
    name = f"{row['index']:06d}_{expression}.png".replace(" ", "_")
    write_bytes(fs, f"{root}/{OVERLAYS}/{name}", buffer.getvalue())
