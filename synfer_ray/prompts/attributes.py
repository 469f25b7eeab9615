"""Attributes of the person and the picture: their values, their phrases, and drawing them by quota."""

from collections.abc import Mapping

import numpy as np

from synfer_ray.errors import InputError, choose

ATTRIBUTES: dict[str, dict[str, str]] = {
    "gender": {"female": "woman", "male": "man"},
    "age": {"child": "child", "young": "young", "adult": "", "middle-aged": "middle-aged", "old": "old"},
    "skin": {"light": "light skin", "medium": "medium skin", "dark": "dark skin"},
    "hair": {
        "black": "black hair",
        "brown": "brown hair",
        "blond": "blond hair",
        "red": "red hair",
        "grey": "grey hair",
        "bald": "a bald head",
    },
    "accessory": {
        "none": "",
        "glasses": "glasses",
        "hat": "a hat",
        "earrings": "earrings",
        "scarf": "a scarf",
    },
    "pose": {
        "any": "",
        "frontal": "facing the camera",
        "left": "turned to the left",
        "right": "turned to the right",
        "up": "looking up",
        "down": "looking down",
        "tilted": "head tilted",
    },
    "background": {
        "plain": "plain background",
        "dark": "dark background",
        "light": "light background",
        "indoor": "indoor background",
        "outdoor": "outdoor background",
        "blurred": "blurred background",
    },
    "lighting": {
        "soft": "soft light",
        "bright": "bright light",
        "dim": "dim light",
        "side": "light from the side",
    },
}
"""Attribute -> value -> the words it adds to a caption."""

FRONTAL = {"pose": "frontal"}
"""What prompts say where nobody asks for another pose.

Captions of faces keep silent only on an unclear pose, so that a silent prompt would ask for just such a face.
"""


def sample_attributes(quotas: Mapping[str, Mapping[str, float]], rng: np.random.Generator) -> dict[str, str]:
    """Draws one value for each attribute in `quotas`, in proportion to its weight.

    Args:
        quotas: attribute -> value -> weight, such as `{"gender": {"female": 1, "male": 1}}`.
        rng: the row's generator.

    Raises:
        InputError: for an unknown attribute or value, a negative weight, or weights that sum to zero.
    """
    attributes = {}
    for name, weights in quotas.items():
        known = ATTRIBUTES[choose(name, ATTRIBUTES, "attribute")]
        values = [choose(value, known, f"value of attribute {name}") for value in weights]
        shares = np.array(list(weights.values()), dtype=float)
        if not (np.isfinite(shares).all() and (shares >= 0).all() and shares.sum() > 0):
            raise InputError(f"quotas of {name} are {dict(weights)}; weights are >= 0 with a positive sum")
        attributes[name] = values[int(rng.choice(len(values), p=shares / shares.sum()))]
    return attributes


def person_noun(attributes: Mapping[str, str]) -> str:
    """Returns the noun phrase of age and gender without an article: `young woman`, `boy`, `person`."""
    gender, age = attributes.get("gender", ""), attributes.get("age", "")
    if age == "child":
        return {"female": "girl", "male": "boy"}.get(gender, "child")
    noun = ATTRIBUTES["gender"].get(gender, "person")
    return f"{ATTRIBUTES['age'].get(age, '')} {noun}".strip()
