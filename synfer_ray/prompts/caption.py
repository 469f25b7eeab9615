"""The caption grammar: label, action units and attributes in, one line of expression-precise English out.

The same grammar writes the captions of FEText and the prompts of generation: the model is asked in the words
it was taught. The expression is named early; then come its visible action units and the attributes of
person and picture. The whole vocabulary is about 150 words.
"""

from collections.abc import Mapping, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from synfer_ray.errors import choose
from synfer_ray.prompts.attributes import ATTRIBUTES, person_noun
from synfer_ray.prompts.cues import CUES, describe_cues, graded, join_words
from synfer_ray.prompts.lint import NEUTRAL_PROMPT
from synfer_ray.prompts.wording import BASIC_WORDINGS, WORDINGS
from synfer_ray.taxonomy.action_units import LEFT_RIGHT, au_vector
from synfer_ray.taxonomy.compounds import COMPOUND_EXPRESSIONS, parse_any_expression
from synfer_ray.taxonomy.expressions import EXPRESSIONS

MAX_WORDS = 40
HINT_SHARE, LARGE_HINT_SHARE = 0.25, 0.4
LOOKS, SCENE = ("skin", "hair", "accessory"), ("pose", "background", "lighting")

OPENINGS = (
    "a photo",
    "a portrait",
    "a close-up",
    "a close-up photo",
    "a picture",
    "a headshot",
    "an image",
)

CLAUSES = (
    "{opening} of {adjective_person}{with_hint}",
    "{opening} of {adjective_person}{with_hint}",
    "{adjective_person}{with_hint} in {opening}",
    "{opening} of the {adjective} face of {person}{with_hint}",
    "{opening} of {person} looking {adjective}{with_hint}",
    "{opening} of {person} who looks {adjective}{with_hint}",
    "{opening} of {person} with {an_adjective} expression{and_hint}",
    "{opening} of {person} showing {noun}{and_hint}",
    "{an_adjective} expression on the face of {person}{with_hint}",
    "a look of {noun}{and_hint} on the face of {person}",
)


class Naming(NamedTuple):
    """One way to name the expression, with what follows it where the face is mixed."""

    adjective: str
    noun: str
    hint: str = ""


def write_caption(
    expression: str,
    action_units: np.ndarray,
    attributes: Mapping[str, str],
    rng: np.random.Generator,
    distribution: Sequence[float] | np.ndarray | None = None,
) -> str:
    """Writes one caption; the same arguments and generator state give the same text.

    Args:
        expression: basic or compound; named first.
        action_units: [41] intensities in 0..1, NaN where unknown; the strongest few are described.
        attributes: any of the keys and values of `ATTRIBUTES`; all optional.
        rng: the row's generator.
        distribution: [7] probabilities in `EXPRESSIONS` order. A second expression with `HINT_SHARE` or more
            is named too: "mostly sad with a hint of fear". Without effect on a compound expression.

    Returns:
        Lower-case text of at most `MAX_WORDS` words; attributes that do not fit are left out.

    Raises:
        InputError: for an unknown expression, attribute or attribute value.
    """
    expression = parse_any_expression(expression)
    phrases = {name: phrase_of(name, value) for name, value in attributes.items()}
    naming = _mixed(expression, distribution) or _plain(expression, rng)
    clause = _clause(_pick(CLAUSES, rng), _pick(OPENINGS, rng), person_noun(attributes), naming)

    cues = describe_cues(action_units, limit=int(rng.integers(2, 5)))
    looks = [phrases[name] for name in LOOKS if phrases.get(name)]
    scene = [phrases[name] for name in SCENE if phrases.get(name)]
    details = _shuffled([f"with {join_words(looks)}", *scene] if looks else scene, rng)
    while len(" ".join([clause, cues, *details]).split()) > MAX_WORDS:
        details.pop()
    details.insert(int(rng.random() < 0.25), cues)
    return ", ".join(filter(None, [clause, *details]))


def phrase_of(attribute: str, value: str) -> str:
    """Returns the words an attribute value adds to a caption (none for `accessory: none`).

    Raises:
        InputError: for an unknown attribute or value.
    """
    values = ATTRIBUTES[choose(attribute, ATTRIBUTES, "attribute")]
    return values[choose(value, values, f"value of attribute {attribute}")]


def vocabulary() -> list[str]:
    """Returns sample texts that together hold every word of the grammar: what a tokenizer is trained on."""
    namings = [Naming(adjective, noun) for words in WORDINGS.values() for adjective, noun in product(*words)]
    pure = np.eye(len(EXPRESSIONS))
    blends = product(zip(EXPRESSIONS, pure), zip(EXPRESSIONS, pure), (0.3, 0.45))
    namings += filter(
        None, (_mixed(name, (1 - share) * a + share * b) for (name, a), (_, b), share in blends)
    )
    people = [
        person_noun({"age": age, "gender": gender})
        for age, gender in product(ATTRIBUTES["age"], ("", *ATTRIBUTES["gender"]))
    ]
    return [
        NEUTRAL_PROMPT,
        *(_clause(clause, OPENINGS[0], "person", naming) for clause, naming in product(CLAUSES, namings)),
        *(_clause(CLAUSES[0], opening, who, namings[0]) for opening, who in product(OPENINGS, people)),
        *(
            f"{cue.subject} {graded(cue.look, level)}"
            for cue, level in product(CUES.values(), (0.2, 0.5, 0.8))
        ),
        *(
            describe_cues(au_vector({unit: 0.8, side: 0.8}), limit=1)
            for unit, sides in LEFT_RIGHT.items()
            for side in sides
        ),
        *(f"with {phrase} and" for name in LOOKS + SCENE for phrase in ATTRIBUTES[name].values() if phrase),
    ]


def _plain(expression: str, rng: np.random.Generator) -> Naming:
    """The usual word half of the time, so that it stays the strongest, else one of its synonyms."""
    words = WORDINGS[expression]
    adjective, noun = (kinds[0] if rng.random() < 0.5 else _pick(kinds, rng) for kinds in words)
    return Naming(adjective, noun)


def _mixed(expression: str, distribution: Sequence[float] | np.ndarray | None) -> Naming | None:
    """The naming of a two-peaked face, or None where one expression is clear; a neutral share weakens it."""
    if distribution is None or expression in COMPOUND_EXPRESSIONS:
        return None
    shares = {name: float(share) for name, share in zip(EXPRESSIONS, distribution) if name != expression}
    second = max(shares, key=lambda name: shares[name])
    if shares[second] < HINT_SHARE:
        return None
    (adjective, *_), (noun, *_) = BASIC_WORDINGS[expression].adjectives, BASIC_WORDINGS[expression].nouns
    if second == "neutral":
        return Naming(f"slightly {adjective}", f"slight {noun}")
    (other, *_) = BASIC_WORDINGS[second].nouns
    if shares[second] >= LARGE_HINT_SHARE:
        return Naming(adjective, noun, f"some {other}")
    return Naming(f"mostly {adjective}", noun, f"a hint of {other}")


def _clause(template: str, opening: str, person: str, naming: Naming) -> str:
    return template.format(
        opening=opening,
        person=_article(person),
        adjective=naming.adjective,
        an_adjective=_article(naming.adjective),
        adjective_person=_article(f"{naming.adjective} {person}"),
        noun=naming.noun,
        with_hint=naming.hint and f" with {naming.hint}",
        and_hint=naming.hint and f" and {naming.hint}",
    )


def _article(phrase: str) -> str:
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


def _pick(choices: Sequence[str], rng: np.random.Generator) -> str:
    return choices[int(rng.integers(len(choices)))]


def _shuffled(items: list[str], rng: np.random.Generator) -> list[str]:
    return [items[i] for i in rng.permutation(len(items))]
