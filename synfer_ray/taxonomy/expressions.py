"""The seven basic expressions, their aliases, and the class orders of known models and datasets.

Every order is a list of names. Two models agree on "class 3" only by accident, so probabilities are moved
between orders by name and never by index.
"""

from collections.abc import Sequence

import numpy as np

from synfer_ray.errors import InputError, choose

EXPRESSIONS = ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger")

ALIASES = {
    "neutrality": "neutral", "natural": "neutral", "no emotion": "neutral",
    "happiness": "happy", "joy": "happy", "joyful": "happy", "smile": "happy",
    "sadness": "sad", "unhappy": "sad",
    "surprised": "surprise", "astonished": "surprise",
    "fearful": "fear", "afraid": "fear", "scared": "fear", "frightened": "fear",
    "disgusted": "disgust",
    "angry": "anger", "mad": "anger",
}  # fmt: skip

_RAF_DB = ("surprise", "fear", "disgust", "happy", "sad", "anger", "neutral")

LABEL_ORDERS: dict[str, tuple[str, ...]] = {
    "affectnet7": EXPRESSIONS,
    "affectnet8": (*EXPRESSIONS, "contempt"),
    "rafdb": _RAF_DB,
    "adadf": _RAF_DB,
    "fer2013": ("anger", "disgust", "fear", "happy", "sad", "surprise", "neutral"),
    "ferplus": (
        "neutral", "happy", "surprise", "sad", "anger", "disgust", "fear", "contempt", "unknown", "no face",
    ),
    "apvit": ("anger", "disgust", "fear", "sad", "happy", "surprise", "neutral"),
    "emotiefflib": ("anger", "contempt", "disgust", "fear", "happy", "neutral", "sad", "surprise"),
}  # fmt: skip
"""Class orders by model or dataset, in our own names. FER+ is the ten vote columns, RAF-DB labels 1 to 7."""


def clean_name(name: str) -> str:
    """Lower case, single spaces for `_` and `-`: `Happily_Surprised` becomes `happily surprised`."""
    return " ".join(name.lower().replace("_", " ").replace("-", " ").split())


def parse_expression(name: str) -> str:
    """Returns the basic expression that `name` means, in any case or as an alias (`Happiness`, `angry`).

    Raises:
        InputError: if it means none, with the nearest name and the choices.
    """
    name = clean_name(name)
    return choose(ALIASES.get(name, name), EXPRESSIONS, "expression")


def resolve_label_order(spec: str | Sequence[str]) -> tuple[str, ...]:
    """Returns the class names of a model in our own spelling.

    Args:
        spec: a key of `LABEL_ORDERS`, or the class names in the model's order, in any spelling. Classes
            outside `EXPRESSIONS` (contempt, unknown) may be among them.

    Raises:
        InputError: for an unknown key, a class named twice, or a basic expression that is missing.
    """
    if isinstance(spec, str):
        return LABEL_ORDERS[choose(spec, LABEL_ORDERS, "label order")]
    names = [clean_name(name) for name in spec]
    order = tuple(ALIASES.get(name, name) for name in names)
    repeated = sorted({name for name in order if order.count(name) > 1})
    missing = [name for name in EXPRESSIONS if name not in order]
    if repeated or missing:
        problem = f"names {', '.join(repeated)} twice" if repeated else f"lacks {', '.join(missing)}"
        raise InputError(f"label order {list(spec)} {problem}; it needs each of: {', '.join(EXPRESSIONS)}")
    return order


def to_expressions(probabilities: np.ndarray, order: str | Sequence[str]) -> np.ndarray:
    """Moves probabilities from a model's class order to `EXPRESSIONS`, by name.

    Args:
        probabilities: [..., C] non-negative, in the classes of `order`; vote counts work too.
        order: anything `resolve_label_order` takes.

    Returns:
        [..., 7] in `EXPRESSIONS` order. Other classes are dropped and the rest sums to one; a row with all
        its mass in dropped classes says nothing about the seven and becomes uniform.

    Raises:
        InputError: if C is not the number of classes in `order`.
    """
    names = resolve_label_order(order)
    probabilities = np.asarray(probabilities)
    classes = probabilities.shape[-1]
    if classes != len(names):
        raise InputError(f"{classes} probabilities for a label order of {len(names)}: {', '.join(names)}")
    kept = probabilities[..., [names.index(name) for name in EXPRESSIONS]]
    total = kept.sum(axis=-1, keepdims=True)
    return np.where(total > 0, kept / np.where(total > 0, total, 1), 1 / len(EXPRESSIONS)).astype(
        np.result_type(probabilities.dtype, np.float32)
    )
