"""What a bundle knows of action units: one from weak to strong, everything else the same, noise included."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from synfer_ray.config import GenerateConfig, SweepConfig
from synfer_ray.errors import InputError, choose
from synfer_ray.prompts import write_caption
from synfer_ray.settings import merge_config
from synfer_ray.stages.model_stage import loaded
from synfer_ray.stages.sample_rows import Row
from synfer_ray.storage.bundle import controlled_action_units, find_bundle
from synfer_ray.storage.locations import filesystem, write_bytes
from synfer_ray.taxonomy.action_units import ACTION_UNITS, FACS_NAMES, LEFT_RIGHT, au_vector
from synfer_ray.taxonomy.expressions import EXPRESSIONS, parse_expression

UNGUIDED = {"guidance": {"guide": None}}
"""A guide would pull every face back to the one expression."""


def sweep(config: SweepConfig) -> None:
    """Draws a row of faces for each action unit, a column for each intensity, as a PNG.

    Under each face stands what was asked for and what the bundle's labeller reads.

    Raises:
        InputError: an action unit is unknown to the adapter, or an intensity is outside [0, 1].
    """
    from synfer_ray.reporting.contact_sheet import Tile, contact_sheet

    settings = merge_config(GenerateConfig, UNGUIDED, config.generate, {"output": config.output})
    bundle = find_bundle(settings.bundle)
    rows = generate_sweep(config, settings, bundle)
    tiles = {
        f"{name} {FACS_NAMES[name]}": [
            Tile(image, (f"{asked:.2f}", "" if found is None else f"read {found:.2f}"))
            for image, asked, found in zip(images, config.intensities, read(bundle, images, name))
        ]
        for name, images in rows.items()
    }
    buffer = io.BytesIO()
    title = f"{config.expression}, seed {config.seed}: one action unit at a time"
    contact_sheet(tiles, title).save(buffer, "PNG", optimize=True)
    fs, path = filesystem(config.output)
    write_bytes(fs, path, buffer.getvalue())
    print(f"{config.output}: {len(rows)} action units at {len(config.intensities)} intensities")


def generate_sweep(
    config: SweepConfig, settings: GenerateConfig, bundle: Path
) -> Mapping[str, list[Image.Image]]:
    """Generates the faces of each action unit, in the order of the intensities.

    All other controlled action units are 0, and the prompt names the expression alone.
    """
    from synfer_ray.stages.image_generator import ImageGenerator

    controlled = controlled_action_units(bundle)
    names = [choose(name, controlled, "action unit") for name in config.action_units]
    if not all(0 <= intensity <= 1 for intensity in config.intensities):
        raise InputError(f"intensities {config.intensities} are not all in [0, 1]")
    expression = parse_expression(config.expression)
    unknown = np.full(len(ACTION_UNITS), np.nan, np.float32)
    prompt = write_caption(expression, unknown, {}, np.random.default_rng(config.seed))
    base = {
        "assigned_label": EXPRESSIONS.index(expression),
        "compound": None,
        "prompt": prompt,
        "seed": config.seed,
    }
    settings.batch_size, settings.voters = len(config.intensities), []
    generator = loaded(ImageGenerator(settings))
    sweeps = {}
    for name in names:
        batch: list[Row] = [
            base
            | {"sample_id": f"{name}-{place}", "index": place, "reason": None}
            | {"action_units": one_unit(name, intensity, controlled)}
            for place, intensity in enumerate(config.intensities)
        ]
        generator.generate(batch, batch)
        sweeps[name] = [Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB") for row in batch]
    return sweeps


def one_unit(name: str, intensity: float, controlled: tuple[str, ...]) -> list[float]:
    """A relaxed face [41] but for one action unit, on both sides of the face; NaN where not controlled."""
    units = au_vector({unit: intensity for unit in (name, *LEFT_RIGHT.get(name, ()))})
    units[~np.isin(ACTION_UNITS, controlled)] = np.nan
    return units.tolist()


def read(bundle: Path, images: list[Image.Image], name: str) -> list[float] | list[None]:
    """The intensity of an action unit that the bundle's labeller reads from each image; None without one."""
    from synfer_ray.calibration.networks import ActionUnitNet
    from synfer_ray.storage.weights import load_model
    from synfer_ray.training.augment import from_uint8

    folder = bundle / "au_labeler"
    if not folder.is_dir():
        return [None] * len(images)
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    labels = load_model(ActionUnitNet, folder).label(from_uint8(pixels))
    return labels[:, ACTION_UNITS.index(name)].tolist()
