"""What a bundle knows of its faces' action units: what was read from clear faces of each expression.

Of some expressions only what textbooks list for them may be left (`au_prior_typical`).

`taxonomy.au_priors` has what textbooks say of an expression. This is what it looks like to the labeller, in
the faces that the model learnt from: which action units come together, and how strongly.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from synfer_ray.errors import InputError
from synfer_ray.taxonomy.action_units import ACTION_UNITS
from synfer_ray.taxonomy.expressions import EXPRESSIONS

AU_PRIOR = "au_prior"
FILE = "action_units.safetensors"

Readings = Mapping[str, NDArray[np.floating]]
"""For each expression the action units of some faces, [N, 41] in 0..1; NaN where the labeller cannot tell."""


def write_au_prior(folder: Path, readings: Readings) -> None:
    """Writes the readings, in half precision."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: faces.astype(np.float16) for name, faces in readings.items()}, folder / FILE)


def read_au_prior(folder: Path) -> Readings:
    """Reads what `write_au_prior` wrote, as float32.

    Raises:
        InputError: the file is missing or damaged, or lacks faces of an expression.
    """
    path = folder / FILE
    try:
        readings = {name: faces.astype(np.float32) for name, faces in load_file(path).items()}
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"missing or damaged model file: {path}: {error}") from error
    for name in EXPRESSIONS:
        faces = readings.get(name, np.empty(0))
        if faces.ndim != 2 or faces.shape[1] != len(ACTION_UNITS) or not len(faces):
            raise InputError(f"{path} has {faces.shape} for {name}: [faces, {len(ACTION_UNITS)}] is needed")
        if ((faces < 0) | (faces > 1)).any():
            raise InputError(f"{path}: intensities of {name} are not all in [0, 1]")
    return {name: readings[name] for name in EXPRESSIONS}
