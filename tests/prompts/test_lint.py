import pytest

from synfer_ray.errors import InputError
from synfer_ray.prompts.lint import NEUTRAL_PROMPT, names_other_expression
from synfer_ray.prompts.wording import WORDINGS
from synfer_ray.taxonomy.compounds import components_of


@pytest.mark.parametrize(
    ("text", "expression", "word"),
    [
        ("a smiling woman", "sad", "smiling"),
        ("a man, not Angry at all", "neutral", "angry"),
        ("an angry-looking child with wide eyes", "fear", "angry"),
        ("a sad man looking surprised", "sad", "surprised"),
        ("happily surprised woman", "surprise", "happily"),
        ("a face full of hatred", "anger", "hatred"),
        ("a contemptuous smirk", "happy", "contemptuous"),
        ("a calm young man", "anger", "calm"),
    ],
)
def test_offending_word(text, expression, word):
    assert names_other_expression(text, expression) == word


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("a smiling, cheerful woman", "happy"),
        ("a woman who is happily surprised, smiling and amazed", "happily surprised"),
        ("a hateful, disgusted stare", "angrily disgusted"),
        ("a sad man before a neutral grey background", "sad"),
        ("an old man with laugh lines and a shock of white hair", "anger"),
        ("a fearless sadler from madrid with a joystick", "neutral"),
        ("inner brows raised, lips strongly stretched", "happy"),
        ("", "sad"),
        (NEUTRAL_PROMPT, "neutral"),
    ],
)
def test_harmless(text, expression):
    assert names_other_expression(text, expression) is None


def test_the_neutral_prompt_names_nothing():
    assert all(names_other_expression(NEUTRAL_PROMPT, expression) is None for expression in WORDINGS)


@pytest.mark.parametrize("expression", WORDINGS)
@pytest.mark.parametrize("other", WORDINGS)
def test_wording_passes_exactly_where_its_expressions_are_asked_for(expression, other):
    allowed = set(components_of(other)) <= set(components_of(expression))
    words = WORDINGS[other]
    for text in (*words.adjectives, *words.nouns):
        assert (names_other_expression(f"a {text} face", expression) is None) == allowed


def test_unknown_expression():
    with pytest.raises(InputError, match="'smug'"):
        names_other_expression("a face", "smug")
