"""The bundle's own prior of action units: readings of the faces that tell their expression most clearly."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from synfer_ray.config import TrainingConfig
from synfer_ray.storage.au_prior import AU_PRIOR, write_au_prior
from synfer_ray.taxonomy.action_units import ACTION_UNITS
from synfer_ray.taxonomy.au_priors import listed_units, sample_action_units
from synfer_ray.taxonomy.expressions import EXPRESSIONS, parse_expression
from synfer_ray.training.data import label_distributions, read_columns

RIDGE = 1e-3
"""Weight of the squared coefficients beside the mean loss of a face."""


def train_au_prior(config: TrainingConfig) -> None:
    """Fills `au_prior/` from FEText, if every expression has faces with known action units."""
    columns = ["sample_id", "label", "label_probs", "action_units"]
    table = read_columns(config.input, columns).sort_by("sample_id")
    readings = telling_faces(
        np.array(table["action_units"].to_pylist(), np.float32),
        label_distributions(table),
        config.au_prior_faces,
    )
    rng = np.random.default_rng(0)
    for name in map(parse_expression, config.au_prior_typical if readings else ()):
        readings[name] = typical(name, readings[name], rng)
    if readings:
        write_au_prior(Path(config.bundle) / AU_PRIOR, readings)


def telling_faces(
    action_units: NDArray[np.float32], label_probs: NDArray[np.float32], count: int
) -> dict[str, NDArray[np.floating]]:
    """Picks for each expression the action units of `count` faces, clear to annotators and in themselves.

    Many a clear face is so by what no action unit tells, and as a request it would only blur the expression.
    So faces rank by the geometric mean of the annotators' share and of what a logistic regression concludes
    from their action units alone.

    Args:
        action_units: [N, 41]; faces of which nothing is known are left out.
        label_probs: the annotators' votes, [N, 7] in the order of EXPRESSIONS.

    Returns:
        Nothing if an expression has no face.
    """
    known = ~np.isnan(action_units).all(axis=1)
    units, votes = action_units[known], label_probs[known]
    labels = votes.argmax(axis=1)
    if not count or len(np.unique(labels)) < len(EXPRESSIONS):
        return {}
    clarity = np.sqrt(conclude(np.nan_to_num(units), votes) * votes)
    readings: dict[str, NDArray[np.floating]] = {}
    for place, name in enumerate(EXPRESSIONS):
        those = np.flatnonzero(labels == place)
        clearest = those[np.argsort(-clarity[those, place], kind="stable")]
        readings[name] = units[clearest[:count]]
    return readings


def typical(
    expression: str, action_units: NDArray[np.floating], rng: np.random.Generator
) -> NDArray[np.floating]:
    """What textbooks list for an expression, at least as strong as they say, and the rest of a face relaxed.

    Clear faces also show what their labeller cannot tell apart, like lids that narrow in a downcast look.

    Args:
        action_units: readings of faces, [N, 41]; what is not known stays so.
    """
    listed = np.isin(ACTION_UNITS, listed_units(expression))
    told = np.stack([sample_action_units(expression, rng) for _ in action_units])
    return np.where(listed, np.maximum(action_units, told), 0 * action_units)


def conclude(action_units: NDArray[np.float32], label_probs: NDArray[np.float32]) -> NDArray[np.float32]:
    """What action units [N, 41] alone say of the expression, [N, 7], by logistic regression on all faces.

    Every expression weighs the same, however frequent it is.
    """
    units, votes = torch.from_numpy(action_units).double(), torch.from_numpy(label_probs).double()
    labels = votes.argmax(dim=1)
    weight = 1 / torch.bincount(labels, minlength=votes.shape[1]).double()[labels]
    coefficients = torch.zeros(units.shape[1], votes.shape[1], dtype=torch.float64, requires_grad=True)
    offsets = torch.zeros(votes.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([coefficients, offsets], max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        losses = -(votes * (units @ coefficients + offsets).log_softmax(dim=1)).sum(dim=1)
        mean = (weight * losses).sum() / weight.sum() + RIDGE * coefficients.square().sum()
        mean.backward()
        return mean

    optimizer.step(loss)
    with torch.no_grad():
        return (units @ coefficients + offsets).softmax(dim=1).float().numpy()
