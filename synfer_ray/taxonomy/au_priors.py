"""Which action units make up an expression, how often and how strongly; and a sampler over them.

Units and shares: Du, Tao & Martinez, PNAS 111:E1454 (2014), Table 1: prototypical units were seen in more
than 70 % of 230 subjects, variants in the given share. The two blends that only RAF-DB has follow the 2015
review and EmotioNet. EMFACS names a few units that the table, which stops at 20 %, leaves out: drawn below
that. Intensities: the 0-5 values used with FineFace in SyntFER, over five; the components' mean for a blend.
"""

from dataclasses import dataclass

import numpy as np

from synfer_ray.taxonomy.action_units import LEFT_RIGHT, au_vector
from synfer_ray.taxonomy.compounds import components_of, parse_any_expression

EMFACS_SHARE = 0.15
DEFAULT_INTENSITY = 0.6
ASYMMETRY = 0.05


@dataclass(frozen=True)
class AUPrior:
    """Units an expression always shows, and units it shows in a share (0..1) of faces."""

    prototypical: tuple[str, ...]
    variants: dict[str, float]


def _prior(prototypical: str, variants: str = "", emfacs: str = "") -> AUPrior:
    """Reads the notation of the published table: `_prior("4 15", "1:60 6:50")`."""
    shares = [entry.split(":") for entry in variants.split()]
    return AUPrior(
        prototypical=tuple(f"AU{int(unit):02d}" for unit in prototypical.split()),
        variants={f"AU{int(unit):02d}": int(share) / 100 for unit, share in shares}
        | {f"AU{int(unit):02d}": EMFACS_SHARE for unit in emfacs.split()},
    )


AU_PRIORS: dict[str, AUPrior] = {
    "neutral": _prior(""),
    "happy": _prior("12 25", "6:51"),
    "sad": _prior("4 15", "1:60 6:50 11:26 17:67"),
    "surprise": _prior("1 2 25 26", "5:66"),
    "fear": _prior("1 4 20 25", "2:57 5:63 26:33", emfacs="7"),
    "disgust": _prior("9 10 17", "4:31 24:26", emfacs="15 16"),
    "anger": _prior("4 7 24", "10:26 17:52 23:29", emfacs="5"),
    "happily surprised": _prior("1 2 12 25", "5:64 26:67"),
    "happily disgusted": _prior("10 12 25", "4:32 6:61 9:59"),
    "sadly fearful": _prior("1 4 20 25", "2:46 5:24 6:34 15:30"),
    "sadly angry": _prior("4 15", "6:26 7:48 11:20 17:50"),
    "sadly surprised": _prior("1 4 25 26", "2:27 6:31"),
    "sadly disgusted": _prior("4 10", "1:49 6:61 9:20 11:35 15:54 17:47 25:43"),
    "fearfully angry": _prior("4 20 25", "5:40 7:39 10:30 11:33"),
    "fearfully surprised": _prior("1 2 5 20 25", "4:47 10:35 11:22 26:51"),
    "fearfully disgusted": _prior("1 4 10 20 25", "2:64 5:50 6:26 9:28 15:33"),
    "angrily surprised": _prior("4 25 26", "5:35 7:50 10:34"),
    "angrily disgusted": _prior("4 10 17", "7:60 9:57 24:36"),
    "disgustedly surprised": _prior("1 2 5 10", "4:45 9:37 17:66 24:33"),
    "happily fearful": _prior("1 2 12 25 26"),
    "happily sad": _prior("4 6 12 25"),
    "appalled": _prior("4 10", "6:25 9:56 17:67 24:36"),
    "hatred": _prior("4 10", "7:57 9:27 17:63 24:37"),
    "awed": _prior("1 2 5 25", "4:21 20:62 26:56"),
}

BASIC_INTENSITIES: dict[str, dict[str, float]] = {
    "neutral": {},
    "happy": {"AU06": 0.5, "AU12": 0.8, "AU25": 0.3},
    "sad": {"AU01": 0.5, "AU04": 0.4, "AU15": 0.6, "AU17": 0.3},
    "surprise": {"AU01": 0.5, "AU02": 0.5, "AU05": 0.56, "AU25": 0.36, "AU26": 0.5},
    "fear": {"AU01": 0.36, "AU02": 0.32, "AU05": 0.5, "AU20": 0.36, "AU25": 0.24, "AU26": 0.24},
    "disgust": {"AU04": 0.24, "AU09": 0.7, "AU17": 0.16, "AU25": 0.16},
    "anger": {"AU04": 0.7, "AU05": 0.16, "AU17": 0.24, "AU25": 0.06},
}


def typical_intensity(expression: str, action_unit: str) -> float:
    """Returns the mean published intensity (0..1) over the components, else `DEFAULT_INTENSITY`."""
    tables = [BASIC_INTENSITIES[component] for component in components_of(expression)]
    known = [table[action_unit] for table in tables if action_unit in table]
    return sum(known) / len(known) if known else DEFAULT_INTENSITY


def listed_units(expression: str) -> tuple[str, ...]:
    """Returns what the table lists for an expression, prototypical and variant, with left and right forms.

    Raises:
        InputError: if the expression is unknown.
    """
    prior = AU_PRIORS[parse_any_expression(expression)]
    units = (*prior.prototypical, *prior.variants)
    return (*units, *(side for unit in units for side in LEFT_RIGHT.get(unit, ())))


def sample_action_units(expression: str, rng: np.random.Generator) -> np.ndarray:
    """Draws the AU vector of one face with a basic or compound expression.

    Prototypical units always, variants at their published share. Intensities vary with one factor for the
    face and a smaller one for each unit; left and right forms follow their main unit, slightly apart.

    Returns:
        float32 [41]; every other unit is 0, nothing is unknown.

    Raises:
        InputError: if the expression is unknown.
    """
    expression = parse_any_expression(expression)
    prior = AU_PRIORS[expression]
    shown = [*prior.prototypical, *(unit for unit, share in prior.variants.items() if rng.random() < share)]
    strength = rng.uniform(0.75, 1.25)
    intensities: dict[str, float] = {}
    for unit in shown:
        intensity = typical_intensity(expression, unit) * strength * rng.uniform(0.85, 1.15)
        intensities[unit] = min(intensity, 1.0)
        if unit in LEFT_RIGHT:
            left, right = LEFT_RIGHT[unit]
            tilt = rng.uniform(-ASYMMETRY, ASYMMETRY)
            intensities[left] = min(intensity * (1 + tilt), 1.0)
            intensities[right] = min(intensity * (1 - tilt), 1.0)
    return au_vector(intensities)
