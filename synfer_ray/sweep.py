"""What a bundle knows of action units: one from weak to strong, everything else the same, noise included."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from synfer_ray.config import GenerateConfig, SweepConfig
from synfer_ray.errors import InputError, RunFailed, choose
from synfer_ray.pipeline import make_plan
from synfer_ray.plan import plan_row
from synfer_ray.settings import merge_config
from synfer_ray.stages.model_stage import loaded
from synfer_ray.stages.sample_rows import Row
from synfer_ray.storage.bundle import find_bundle
from synfer_ray.storage.locations import filesystem, write_bytes
from synfer_ray.taxonomy.action_units import ACTION_UNITS, FACS_NAMES, LEFT_RIGHT, au_vector

if TYPE_CHECKING:
    from synfer_ray.calibration.networks import ActionUnitNet

UNGUIDED = {"guidance": {"guide": None}}
"""A guide would pull every face back to the one expression."""


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
    """Settings of a generate job whose first row is the face to sweep; a batch holds all intensities.

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
        "batch_size": len(config.intensities),
        "voters": [],
    }
    return merge_config(GenerateConfig, UNGUIDED, config.generate, asked)


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

    def rows(name: str, intensities: Sequence[float]) -> list[Row]:
        return [
            face | {"index": place, "action_units": one_unit(name, intensity, plan.controlled)}
            for place, intensity in enumerate(intensities)
        ]

    if config.strength < 1 and settings.layout.mode == "none":
        relaxed = generator.sample(rows(names[0], [0.0] * len(config.intensities)))
        generator.start_from(relaxed.latents, config.strength)
    sweeps = {}
    for name in names:
        batch = rows(name, config.intensities)
        generator.generate(batch, batch)
        sweeps[name] = [image_of(row) for row in batch]
    return sweeps


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
