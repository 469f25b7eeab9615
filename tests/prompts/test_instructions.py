import re

import numpy as np
import pytest

from synfer_ray.errors import InputError
from synfer_ray.prompts.answers import fault_of, tidy
from synfer_ray.prompts.instructions import caption_instruction, prompt_instruction
from synfer_ray.taxonomy.action_units import au_vector
from synfer_ray.taxonomy.compounds import COMPOUND_EXPRESSIONS, components_of
from synfer_ray.taxonomy.expressions import EXPRESSIONS

SMILE = au_vector({"AU12": 0.9}, fill=np.nan)


@pytest.mark.parametrize("write", [caption_instruction, prompt_instruction])
def test_the_examples_keep_the_rules(write):
    examples = re.findall(r"Facts: (.*)\n(?:Caption|Prompt): (.*)\n", write("happy", SMILE, {}, 50))
    assert len(examples) >= 2
    for facts, text in examples:
        parts = re.match(r"expression ([\w ]+);", facts)[1].split(" and ")
        names = [
            name for name in (*EXPRESSIONS, *COMPOUND_EXPRESSIONS) if set(components_of(name)) == set(parts)
        ]
        assert fault_of(tidy(text), names[0] if names else None, 50) == ("", "")
        assert len(text.split()) >= 15


@pytest.mark.parametrize("expression", [*EXPRESSIONS, *COMPOUND_EXPRESSIONS])
def test_facts_and_naming_are_those_of_the_row(expression):
    text = prompt_instruction(expression, SMILE, {"gender": "female", "accessory": "none"}, 40)
    last = text.rsplit("Facts: ", 1)[1]
    parts = " and ".join(components_of(expression))
    assert last == f"expression {parts}; lip corners strongly pulled up; woman\nPrompt:"
    naming = re.search(r"in these words: (.*)\.", text)[1]
    assert all(
        fault_of(f"a face that can be called {word}", expression, 40) == ("", "")
        for word in naming.split(", ")
    )
    assert "15 to 40 words" in text


def test_an_unknown_expression_is_not_to_be_guessed():
    text = caption_instruction(None, au_vector({}, fill=np.nan), {}, 40)
    assert text.endswith("Facts: expression unknown\nCaption:")
    assert "name no feeling" in text


def test_an_unknown_attribute_is_named():
    with pytest.raises(InputError, match="gendr"):
        prompt_instruction("sad", SMILE, {"gendr": "female"}, 40)
