"""Does a text name an expression that was not asked for? Enrichment (paper Sec. 4.1) must keep the label."""

import re

from synfer_ray.prompts.wording import BASIC_WORDINGS, OTHER_NAMES
from synfer_ray.taxonomy.compounds import COMPOUND_EXPRESSIONS, components_of

NEUTRAL_PROMPT = "a photo of a face"
"""Names no expression: for DDIM inversion, and for FERAnno, which must not be told the label."""

NAMES: dict[str, frozenset[str]] = {
    **{word: frozenset({expression}) for expression, words in OTHER_NAMES.items() for word in words.split()},
    **{
        word: frozenset({expression})
        for expression, wording in BASIC_WORDINGS.items()
        for word in wording.adjectives + wording.nouns
    },
    **{
        word: frozenset(COMPOUND_EXPRESSIONS[compound].components)
        for compound, words in {
            "appalled": "appalled appalling",
            "hatred": "hatred hate hates hateful",
            "awed": "awed awe",
        }.items()
        for word in words.split()
    },
}
"""Word -> the expressions it names."""

_HARMLESS = re.compile(
    r"\b(?:laugh|smile|scowl)[ -]lines?\b|\bshock of\b"
    r"|\b(?:neutral|calm)(?: (?:grey|gray|studio))* "
    r"(?:back(?:ground|drop)|wall|setting|room|light(?:ing)?|tones?|colou?rs?|palette|water|sea)\b"
)


def names_other_expression(text: str, expression: str | None) -> str | None:
    """Returns the first word of `text` that names an expression not part of `expression`, or None.

    Both components of a compound expression are part of it; None has no part. Negation does not excuse a
    word, because a text encoder barely notices it: "not smiling" still names a smile.

    Raises:
        InputError: if `expression` is unknown.
    """
    asked = set(components_of(expression)) if expression else set()
    return next((word for word in _words(text) if not NAMES.get(word, frozenset()) <= asked), None)


def names_expression(text: str, expression: str) -> bool:
    """Whether a word of `text` names `expression`, or a part of it.

    Raises:
        InputError: if `expression` is unknown.
    """
    asked = set(components_of(expression))
    return any(NAMES.get(word, frozenset()) & asked for word in _words(text))


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", _HARMLESS.sub(" ", text.lower()))
