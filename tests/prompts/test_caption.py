import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synfer_ray.errors import InputError
from synfer_ray.prompts.attributes import ATTRIBUTES
from synfer_ray.prompts.caption import MAX_WORDS, vocabulary, write_caption
from synfer_ray.prompts.lint import NAMES, names_other_expression
from synfer_ray.prompts.wording import WORDINGS
from synfer_ray.taxonomy.action_units import au_vector
from synfer_ray.taxonomy.au_priors import sample_action_units
from synfer_ray.taxonomy.expressions import EXPRESSIONS

UNKNOWN = np.full(41, np.nan, np.float32)

expressions = st.sampled_from(list(WORDINGS))
basic = st.sampled_from(EXPRESSIONS)
seeds = st.integers(0, 2**32 - 1)
attributes = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from(list(ATTRIBUTES[name])) for name in ATTRIBUTES}
)
action_units = st.one_of(
    st.builds(
        lambda expression, seed: sample_action_units(expression, np.random.default_rng(seed)),
        expressions,
        seeds,
    ),
    st.lists(st.one_of(st.just(float("nan")), st.floats(0, 1)), min_size=41, max_size=41).map(np.float32),
)
distributions = (
    st.lists(st.floats(0, 1), min_size=7, max_size=7).filter(sum).map(lambda p: np.array(p) / sum(p))
)


def words(text: str) -> list[str]:
    return re.findall(r"[\w-]+", text)


KNOWN_WORDS = {word for text in vocabulary() for word in words(text)}


@given(expressions, action_units, attributes, seeds)
def test_captions_pass_the_lint_name_the_expression_early_and_stay_short(expression, units, who, seed):
    text = write_caption(expression, units, who, np.random.default_rng(seed))
    assert names_other_expression(text, expression) is None
    assert len(text.split()) <= MAX_WORDS
    assert text == text.lower().strip()
    naming = next(i for i, word in enumerate(words(text)) if word in NAMES)
    assert naming < 12
    assert set(words(text)) <= KNOWN_WORDS


@given(basic, action_units, attributes, distributions, seeds)
def test_a_mixed_caption_names_at_most_its_second_peak(expression, units, who, distribution, seed):
    text = write_caption(expression, units, who, np.random.default_rng(seed), distribution)
    others = {name: share for name, share in zip(EXPRESSIONS, distribution) if name != expression}
    second = max(others, key=others.get)
    named = set().union(*(NAMES.get(word, set()) for word in words(text)))
    assert expression in named
    assert named <= {expression, second}
    if others[second] < 0.25 or second == "neutral":
        assert named == {expression}
    else:
        assert named == {expression, second}
    assert len(text.split()) <= MAX_WORDS
    assert set(words(text)) <= KNOWN_WORDS


@given(expressions, action_units, attributes, seeds)
def test_english(expression, units, who, seed):
    text = write_caption(expression, units, who, np.random.default_rng(seed))
    assert not re.search(r"\ba [aeiou]|\ban [^aeiou]|  | ,|,,|,$|\bwith,|\band,|\{", text)
    assert not re.search(r"\b(\w+) \1\b", text)


@pytest.mark.parametrize("seed", range(30))
def test_two_peaks(seed):
    def caption(**shares: float) -> str:
        distribution = [shares.get(name, 0) for name in EXPRESSIONS]
        return write_caption("sad", UNKNOWN, {}, np.random.default_rng(seed), distribution)

    assert re.search("sad.* (with|and) a hint of fear", caption(sad=0.7, fear=0.3))
    assert re.search("sad.* (with|and) some fear", caption(sad=0.55, fear=0.45))
    assert re.search("slightly sad|slight sadness", caption(sad=0.6, neutral=0.4))
    assert "hint" not in caption(sad=0.8, fear=0.2)


def test_captions_vary_and_repeat_by_seed():
    texts = [write_caption("fear", UNKNOWN, {}, np.random.default_rng(seed)) for seed in range(200)]
    assert len(set(texts)) > 80
    assert texts[7] == write_caption("fear", UNKNOWN, {}, np.random.default_rng(7))
    usual = sum(bool({"fear", "fearful"} & set(words(text))) for text in texts)
    assert usual > 100


def test_cues_and_attributes_reach_the_text():
    units = au_vector({"AU20": 0.9}, fill=np.nan)
    who = {"gender": "female", "age": "old", "hair": "grey", "accessory": "none", "background": "plain"}
    for seed in range(20):
        text = write_caption("fear", units, who, np.random.default_rng(seed))
        for phrase in ("old woman", "lips strongly stretched", "with grey hair", "plain background"):
            assert phrase in text


def test_cues_outlast_attributes_when_space_is_short():
    who = {name: list(values)[1] for name, values in ATTRIBUTES.items()} | {"lighting": "side"}
    units = au_vector({"AU04": 0.9, "AU12": 0.8, "AU20": 0.7, "AU24": 0.7})
    texts = [write_caption("happily sad", units, who, np.random.default_rng(seed)) for seed in range(50)]
    assert all("brows strongly drawn together" in text and "strongly pulled up" in text for text in texts)
    assert any("background" not in text or "light from the side" not in text for text in texts)


def test_the_vocabulary_is_small():
    assert len(KNOWN_WORDS) < 250


@pytest.mark.parametrize(
    ("expression", "who", "message"),
    [
        ("smug", {}, "unknown expression 'smug'"),
        ("sad", {"hat": "red"}, "unknown attribute 'hat'"),
        ("sad", {"hair": "green"}, "value of attribute hair 'green'"),
    ],
)
def test_bad_input(expression, who, message):
    with pytest.raises(InputError, match=message):
        write_caption(expression, UNKNOWN, who, np.random.default_rng(0))
