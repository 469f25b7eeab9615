"""What a bundle knows of action units: one from weak to strong, everything else the same, noise included."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from synfer_ray.config import GenerateConfig, SweepConfig
from synfer_ray.diffusion.editing import LocalEdit
from synfer_ray.errors import InputError, RunFailed, choose
from synfer_ray.faces.alignment import CANONICAL
from synfer_ray.pipeline import make_plan
from synfer_ray.plan import plan_row
from synfer_ray.settings import merge_config
from synfer_ray.stages.model_stage import loaded
from synfer_ray.stages.sample_rows import Row
from synfer_ray.storage.bundle import find_bundle
from synfer_ray.storage.locations import filesystem, write_bytes
from synfer_ray.taxonomy.action_units import ACTION_UNITS, FACS_NAMES, LEFT_RIGHT, UPPER_FACE, au_vector

if TYPE_CHECKING:
    from synfer_ray.calibration.networks import ActionUnitNet

DEFAULTS = {"guidance": {"guide": None}, "sampling": {"au_guidance_scale": 1.25}}
"""A guide would pull every face back to the one expression; and action units are to be seen."""
FOREHEAD, SIDE = 0.05, 0.1
"""Shares of an aligned face's image above the brows, however high they are raised, and beside the cheeks."""
EYES, MOUTH = CANONICAL.imag[[0, 2]]
NOSE = EYES + 0.5 * (MOUTH - EYES), EYES + 0.57 * (MOUTH - EYES)
"""Where the upper face ends and the lower one starts: the tip of the nose between them always stays."""
NOSE_UNITS = ("AU09", "AU38", "AU39")
"""Of the lower face by FACS, but they move what is above its mouth."""
SOFTNESS = 0.05
"""How gently one half fades into the other, as a share of the image."""


def sweep(config: SweepConfig) -> None:
    """Draws a row of faces for each action unit, a column for each intensity, as a PNG.

    Under each face stands what was asked for and what the bundle's labeller reads.

    Raises:
        InputError: an action unit is unknown to the adapter, or an intensity is outside [0, 1].
        RunFailed: the model made NaN instead of a face.
    """
    from synfer_ray.reporting.contact_sheet import Tile, contact_sheet

    settings = sweep_settings(config)
    bundle = find_bundle(settings.bundle)
    rows = generate_sweep(config, settings, bundle)
    labeler = load_labeler(bundle)
    tiles = {
        f"{name} {FACS_NAMES[name]}": [
            Tile(image, (f"{asked:.2f}", "" if np.isnan(found) else f"read {found:.2f}"))
            for image, asked, found in zip(images, config.intensities, read(labeler, images, name))
        ]
        for name, images in rows.items()
    }
    buffer = io.BytesIO()
    title = f"{config.expression}, seed {config.seed}: one action unit at a time"
    contact_sheet(tiles, title).save(buffer, "PNG", optimize=True)
    fs, path = filesystem(config.output)
    write_bytes(fs, path, buffer.getvalue())
    print(f"{config.output}: {len(rows)} action units at {len(config.intensities)} intensities")


def sweep_settings(config: SweepConfig) -> GenerateConfig:
    """Settings of a generate job whose first row is the face to sweep.

    A batch holds the relaxed face and all intensities.

    Raises:
        InputError: the sweep names no action unit or intensity, or a number is out of its range.
    """
    if not 0 < config.strength <= 1:
        raise InputError(f"strength={config.strength} is not above 0 and up to 1")
    if not config.action_units or not config.intensities:
        raise InputError("action_units and intensities must each name at least one")
    if not all(0 <= intensity <= 1 for intensity in config.intensities):
        raise InputError(f"intensities {config.intensities} are not all in [0, 1]")
    asked = {
        "output": config.output,
        "expressions": [config.expression],
        "compound_share": 0.0,
        "describe_action_units": False,
        "seed": config.seed,
        "batch_size": 1 + len(config.intensities),  # the relaxed face, which the others follow
        "voters": [],
    }
    return merge_config(GenerateConfig, DEFAULTS, config.generate, asked)


def generate_sweep(
    config: SweepConfig, settings: GenerateConfig, bundle: Path
) -> Mapping[str, list[Image.Image]]:
    """Generates the faces of each action unit, in the order of the intensities.

    All other controlled action units are 0, and the prompt keeps silent on all of them.
    """
    from synfer_ray.stages.image_generator import ImageGenerator

    plan = make_plan(settings, bundle)
    names = [choose(name, plan.controlled, "action unit") for name in config.action_units]
    face = asdict(plan_row(plan, 0)) | {"reason": None}
    generator = loaded(ImageGenerator(plan.config))
    size = generator.components.latent_shape(generator.image_size)[1:]

    def rows(name: str, intensities: Sequence[float]) -> list[Row]:
        return [
            face | {"index": place, "action_units": one_unit(name, intensity, plan.controlled)}
            for place, intensity in enumerate(intensities)
        ]

    sweeps = {}
    for name in names:
        batch = rows(name, [0.0, *config.intensities])
        edit = LocalEdit(half_face(name, *size) if config.local else torch.ones(size), config.strength)
        generator.generate(batch, batch, edit)
        sweeps[name] = [image_of(row) for row in batch[1:]]
    return sweeps


def half_face(action_unit: str, height: int, width: int) -> Tensor:
    """The half of an aligned face, upper or lower, that FACS says an action unit moves.

    Returns:
        How far each place belongs to it, [height, width] in 0..1.
    """
    rows, columns = ((torch.arange(size) + 0.5) / size for size in (height, width))
    top, end = (FOREHEAD, NOSE[0]) if action_unit in UPPER_FACE else (NOSE[1], math.inf)
    if action_unit in NOSE_UNITS:
        top, end = EYES, MOUTH
    return between(top, rows, end)[:, None] * between(SIDE, columns, 1 - SIDE)


def between(start: float, places: Tensor, end: float) -> Tensor:
    """1 from `start` to `end` and 0 beyond, with soft edges."""
    return torch.sigmoid((places - start) / SOFTNESS) * torch.sigmoid((end - places) / SOFTNESS)


def one_unit(name: str, intensity: float, controlled: Sequence[str]) -> list[float]:
    """A relaxed face [41] but for one action unit, on both sides of the face; NaN where not controlled."""
    units = au_vector({unit: intensity for unit in (name, *LEFT_RIGHT.get(name, ()))})
    units[~np.isin(ACTION_UNITS, controlled)] = np.nan
    return units.tolist()


def image_of(row: Row) -> Image.Image:
    """The image of a generated row, be it flat or black.

    Raises:
        RunFailed: there is none.
    """
    if "image" not in row:
        raise RunFailed(f"no face for action_units {row['action_units']}: {row['reason']}, {row['detail']}")
    return Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")


def load_labeler(bundle: Path) -> "ActionUnitNet | None":
    """The bundle's action-unit labeller, if it has one."""
    from synfer_ray.calibration.networks import ActionUnitNet
    from synfer_ray.storage.weights import load_model

    folder = bundle / "au_labeler"
    return load_model(ActionUnitNet, folder) if folder.is_dir() else None


def read(labeler: "ActionUnitNet | None", images: list[Image.Image], name: str) -> list[float]:
    """The intensity of an action unit that the labeller reads from each image; NaN if it reads none."""
    from synfer_ray.training.augment import from_uint8

    if labeler is None:
        return [np.nan] * len(images)
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    return labeler.label(from_uint8(pixels))[:, ACTION_UNITS.index(name)].tolist()
