"""The bundle's own prior of action units: readings of the faces whose expression is least in doubt."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from synfer_ray.config import TrainingConfig
from synfer_ray.storage.au_prior import AU_PRIOR, Readings, write_au_prior
from synfer_ray.taxonomy.expressions import EXPRESSIONS
from synfer_ray.training.data import label_distributions, read_columns


def train_au_prior(config: TrainingConfig) -> None:
    """Fills `au_prior/` from FEText, if every expression has faces with known action units."""
    columns = ["sample_id", "label", "label_probs", "action_units"]
    table = read_columns(config.input, columns).sort_by("sample_id")
    readings = clearest_faces(
        np.array(table["action_units"].to_pylist(), np.float32),
        label_distributions(table),
        config.au_prior_faces,
    )
    if all(map(len, readings.values())):
        write_au_prior(Path(config.bundle) / AU_PRIOR, readings)


def clearest_faces(
    action_units: NDArray[np.floating], label_probs: NDArray[np.floating], count: int
) -> Readings:
    """Picks for each expression the action units of up to `count` faces, those that most annotators agree on.

    Args:
        action_units: [N, 41]; faces of which nothing is known are left out.
        label_probs: the annotators' votes, [N, 7] in the order of EXPRESSIONS. Where as many agree on more
            faces than are needed, these are drawn at random.
    """
    rng = np.random.default_rng(0)
    known = np.flatnonzero(~np.isnan(action_units).all(axis=1))
    shuffled = rng.permutation(known)
    readings = {}
    for place, name in enumerate(EXPRESSIONS):
        those = shuffled[label_probs[shuffled].argmax(axis=1) == place]
        clearest = those[np.argsort(-label_probs[those, place], kind="stable")]
        readings[name] = action_units[clearest[:count]]
    return readings
