"""What language models are told (paper 4.1 and 4.2.1): a role, rules and examples, in our own words."""

from collections.abc import Mapping

import numpy as np

from synfer_ray.prompts.caption import phrase_of
from synfer_ray.prompts.cues import describe_cues
from synfer_ray.prompts.wording import WORDINGS
from synfer_ray.taxonomy.compounds import components_of, parse_any_expression

MAX_CUES = 6

RULES = """- One line of plain English text, {fewest} to {most} words, with nothing around it.
- Say what can be seen: brows, eyelids, cheeks, nose, lips and jaw, then the person and the picture.
- {naming}
- Do not use words of any other feeling, not even to deny it. No names, origins or thoughts."""

CAPTION = """You are an expert on facial expressions. You write the captions from which an image generator
learns what each expression looks like. You see one face.

{rules}

Facts: expression happy; lip corners strongly pulled up, cheeks raised
Caption: a happy young woman with her lip corners pulled up into full, raised cheeks and narrowed eyes, \
brown hair to the shoulders, facing the camera in soft light
Facts: expression fear; upper eyelids raised, lips stretched
Caption: a close-up of a frightened man, upper eyelids raised high over wide eyes, inner brows drawn up \
and together, lips stretched flat and a little apart, dark background
Facts: expression unknown; jaw dropped
Caption: a portrait of a man with short grey hair, his jaw dropped and lips parted, eyes on the camera, \
plain background

Facts: {facts}
Caption:"""

PROMPT = """You are a portrait photographer who knows how every muscle moves a face. You turn facts into a
prompt for an image generator. No two of your prompts are alike: where the facts leave them open, you choose
hair, clothes, place, light and framing yourself.

{rules}

Facts: expression sad; inner brows raised, lip corners pulled down; old, man, outdoor background
Prompt: a close-up of a sad old man on a rainy street, inner brows raised, lip corners pulled down, heavy \
eyelids, grey stubble, blurred houses behind him
Facts: expression surprise and happy; outer brows raised, jaw dropped; woman
Prompt: a happily surprised woman in a yellow raincoat, outer brows raised high, jaw dropped, cheeks \
lifted, soft window light, framed from the shoulders up

Facts: {facts}
Prompt:"""

TASKS = CAPTION + PROMPT + RULES
"""Every word of ours that a model reads."""


def caption_instruction(
    expression: str | None, action_units: np.ndarray, attributes: Mapping[str, str], max_words: int
) -> str:
    """Returns what a model that sees the face is told.

    Args:
        expression: of the face, basic or compound; None if it is unknown, and is not to be guessed.
        action_units: [41] intensities in 0..1, NaN where unknown.
        attributes: known ones, in the keys and values of `ATTRIBUTES`.

    Raises:
        InputError: an unknown expression or attribute.
    """
    return _instruction(CAPTION, expression, action_units, attributes, max_words)


def prompt_instruction(
    expression: str, action_units: np.ndarray, attributes: Mapping[str, str], max_words: int
) -> str:
    """Returns what a model is told that words the prompt of a planned row; arguments as above."""
    return _instruction(PROMPT, expression, action_units, attributes, max_words)


def _instruction(
    task: str,
    expression: str | None,
    action_units: np.ndarray,
    attributes: Mapping[str, str],
    max_words: int,
) -> str:
    if expression is None:
        name, naming = (
            "unknown",
            "The expression is not known: describe the face, and name no feeling at all.",
        )
    else:
        adjectives, nouns = WORDINGS[parse_any_expression(expression)]
        name = " and ".join(components_of(expression))
        words = ", ".join(dict.fromkeys((*adjectives, *nouns)))
        naming = f"Name the expression early, in these words: {words}."
    looks = ", ".join(filter(None, (phrase_of(key, value) for key, value in attributes.items())))
    facts = [f"expression {name}", describe_cues(action_units, MAX_CUES), looks]
    rules = RULES.format(fewest=min(15, max_words), most=max_words, naming=naming)
    return task.format(rules=rules, facts="; ".join(filter(None, facts)))
