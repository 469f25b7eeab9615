"""The 41 facial action units (AUs) of OpenGraphAU's registry, by name.

27 main units, then the left and right forms of seven of them. An AU vector is float32 [41] in this order with
intensities in 0..1 and NaN for "unknown", which is not the same as 0, "seen and at rest".
"""

from collections.abc import Mapping

import numpy as np

from synfer_ray.errors import InputError, choose

_MAIN = {
    "AU01": "inner brow raiser",
    "AU02": "outer brow raiser",
    "AU04": "brow lowerer",
    "AU05": "upper lid raiser",
    "AU06": "cheek raiser",
    "AU07": "lid tightener",
    "AU09": "nose wrinkler",
    "AU10": "upper lip raiser",
    "AU11": "nasolabial deepener",
    "AU12": "lip corner puller",
    "AU13": "sharp lip puller",
    "AU14": "dimpler",
    "AU15": "lip corner depressor",
    "AU16": "lower lip depressor",
    "AU17": "chin raiser",
    "AU18": "lip pucker",
    "AU19": "tongue show",
    "AU20": "lip stretcher",
    "AU22": "lip funneler",
    "AU23": "lip tightener",
    "AU24": "lip pressor",
    "AU25": "lips part",
    "AU26": "jaw drop",
    "AU27": "mouth stretch",
    "AU32": "lip bite",
    "AU38": "nostril dilator",
    "AU39": "nostril compressor",
}

LEFT_RIGHT: dict[str, tuple[str, str]] = {
    f"AU{number}": (f"AUL{number}", f"AUR{number}") for number in ("01", "02", "04", "06", "10", "12", "14")
}
"""Main unit -> its left and right forms. OpenGraphAU computes its AUL12/AUR12 outputs from the AU11 node."""

FACS_NAMES: dict[str, str] = _MAIN | {
    name: f"{side} {_MAIN[main]}"
    for main, pair in LEFT_RIGHT.items()
    for name, side in zip(pair, ("left", "right"))
}

ACTION_UNITS = tuple(FACS_NAMES)

UPPER_FACE = frozenset(name for name in ACTION_UNITS if int(name[-2:]) <= 7)
"""What FACS counts to the upper face: brows, lids and cheeks. All others move the lower face."""


def au_vector(intensities: Mapping[str, float], fill: float = 0.0) -> np.ndarray:
    """Returns the float32 [41] vector of named intensities, `fill` (0 or NaN) elsewhere.

    Raises:
        InputError: for an unknown name or an intensity outside 0..1 (NaN is allowed).
    """
    vector = np.full(len(ACTION_UNITS), fill, dtype=np.float32)
    for name, intensity in intensities.items():
        if intensity < 0 or intensity > 1:
            raise InputError(f"intensity of {name} is {intensity}; action units go from 0 to 1")
        vector[ACTION_UNITS.index(choose(name, ACTION_UNITS, "action unit"))] = intensity
    return vector


def au_dict(vector: np.ndarray, threshold: float = 0.0) -> dict[str, float]:
    """Returns the names and intensities of the known action units above `threshold`."""
    return {name: float(value) for name, value in zip(ACTION_UNITS, vector) if value > threshold}
