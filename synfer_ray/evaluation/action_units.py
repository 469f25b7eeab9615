"""Do the generated faces show the requested action units?

Plain accuracy over 41 sparse action units is high for a face that shows nothing, so the figure is macro F1.
"""

import numpy as np
from numpy.typing import NDArray

from synfer_ray.taxonomy.action_units import ACTION_UNITS


def action_unit_f1(
    requested: NDArray[np.floating], found: NDArray[np.floating], threshold: float = 0.5
) -> dict[str, float]:
    """F1 of each action unit by name: requested against found.

    Args:
        requested: intensities [N, 41] in the order of ACTION_UNITS; NaN = not asked for either way.
        found: intensities read from the images, [N, 41]; NaN = the reader cannot tell.
        threshold: intensity from which an action unit counts as present.

    Returns:
        Only action units that were requested at least once where both sides are known: F1 of one that nobody
        asked for is zero, or undefined, whatever the faces show.
    """
    known = ~np.isnan(requested) & ~np.isnan(found)
    asked, seen = known & (requested >= threshold), known & (found >= threshold)
    hits = (asked & seen).sum(axis=0)
    times_asked, times_seen = asked.sum(axis=0), seen.sum(axis=0)
    return {
        name: float(2 * hits[i] / (times_asked[i] + times_seen[i]))
        for i, name in enumerate(ACTION_UNITS)
        if times_asked[i]
    }


def macro_f1(requested: NDArray[np.floating], found: NDArray[np.floating], threshold: float = 0.5) -> float:
    """Mean of `action_unit_f1`; NaN if no action unit was requested."""
    scores = list(action_unit_f1(requested, found, threshold).values())
    return float(np.mean(scores)) if scores else float("nan")
