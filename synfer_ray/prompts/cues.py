"""Visible action units in plain words: "inner and outer brows raised, lips strongly stretched"."""

from typing import NamedTuple

import numpy as np

from synfer_ray.taxonomy.action_units import ACTION_UNITS, LEFT_RIGHT

VISIBLE = 0.15
"""Intensity below which a unit goes unmentioned."""

SLIGHT, STRONG = 0.35, 0.65
"""Intensities below and from which the cue is "slightly" or "strongly" there."""

ONE_SIDED = 0.3
"""Difference of left and right from which only the stronger side is named."""


class Cue(NamedTuple):
    """What a unit moves (`subject`), how it then looks, and the subject on one side of the face."""

    subject: str
    look: str
    one_side: str = ""


CUES: dict[str, Cue] = {
    "AU01": Cue("inner brows", "raised", "inner brow"),
    "AU02": Cue("outer brows", "raised", "outer brow"),
    "AU04": Cue("brows", "drawn together", "brow"),
    "AU05": Cue("upper eyelids", "raised"),
    "AU06": Cue("cheeks", "raised", "cheek"),
    "AU07": Cue("eyelids", "tightened"),
    "AU09": Cue("nose", "wrinkled"),
    "AU10": Cue("upper lip", "raised", "upper lip"),
    "AU11": Cue("nose folds", "deepened"),
    "AU12": Cue("lip corners", "pulled up", "lip corner"),
    "AU13": Cue("lip corners", "pinched up"),
    "AU14": Cue("cheeks", "dimpled", "cheek"),
    "AU15": Cue("lip corners", "pulled down"),
    "AU16": Cue("lower lip", "pulled down"),
    "AU17": Cue("chin", "raised"),
    "AU18": Cue("lips", "puckered"),
    "AU19": Cue("tongue", "stuck out"),
    "AU20": Cue("lips", "stretched"),
    "AU22": Cue("lips", "pushed out"),
    "AU23": Cue("lips", "tightened"),
    "AU24": Cue("lips", "pressed together"),
    "AU25": Cue("lips", "parted"),
    "AU26": Cue("jaw", "dropped"),
    "AU27": Cue("mouth", "stretched open"),
    "AU32": Cue("lip", "bitten"),
    "AU38": Cue("nostrils", "widened"),
    "AU39": Cue("nostrils", "narrowed"),
}

SUBJECTS = tuple(
    {f"{side}{cue.one_side}" for cue in CUES.values() for side in ("left ", "right ") if cue.one_side}
    | {cue.subject for cue in CUES.values()}
)
"""What a phrase about action units begins with."""


def graded(look: str, intensity: float) -> str:
    """Returns the look with its adverb: `slightly raised`, `raised`, `strongly raised`."""
    if intensity < SLIGHT:
        return f"slightly {look}"
    return f"strongly {look}" if intensity >= STRONG else look


def describe_cues(action_units: np.ndarray, limit: int) -> str:
    """Returns the strongest visible action units in words, or an empty string.

    Args:
        action_units: [41] intensities in 0..1; NaN (unknown) is never mentioned.
        limit: how many main units to name at most.

    Returns:
        Cues in the order of `ACTION_UNITS`; subjects that look the same share one verb
        ("inner brows and cheeks raised").
    """
    intensity = {name: float(value) for name, value in zip(ACTION_UNITS, action_units)}
    visible = [unit for unit in CUES if intensity[unit] >= VISIBLE]
    chosen = sorted(visible, key=lambda unit: -intensity[unit])[:limit]
    subjects: dict[str, list[str]] = {}
    for unit in sorted(chosen):
        look = graded(CUES[unit].look, intensity[unit])
        subjects.setdefault(look, []).append(_subject(unit, intensity))
    return ", ".join(f"{join_words(nouns)} {look}" for look, nouns in subjects.items())


def without_cues(caption: str) -> str:
    """Leaves out of a caption the phrases between commas that tell what an action unit moves."""
    return ", ".join(phrase for phrase in caption.split(", ") if not phrase.startswith(SUBJECTS))


def _subject(unit: str, intensity: dict[str, float]) -> str:
    cue = CUES[unit]
    if unit in LEFT_RIGHT:
        left, right = (intensity[side] for side in LEFT_RIGHT[unit])
        if abs(left - right) >= ONE_SIDED:
            return f"{'left' if left > right else 'right'} {cue.one_side}"
    return cue.subject


def join_words(words: list[str]) -> str:
    """Returns `a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
