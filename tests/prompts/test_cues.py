import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from synfer_ray.prompts.caption import write_caption
from synfer_ray.prompts.cues import CUES, describe_cues, join_words, without_cues
from synfer_ray.taxonomy.action_units import ACTION_UNITS, LEFT_RIGHT, au_vector
from synfer_ray.taxonomy.expressions import EXPRESSIONS


def test_every_main_unit_has_a_cue_and_every_sided_one_a_side():
    assert tuple(CUES) == ACTION_UNITS[:27]
    assert {unit for unit, cue in CUES.items() if cue.one_side} == set(LEFT_RIGHT)


@pytest.mark.parametrize(
    ("intensities", "text"),
    [
        ({}, ""),
        ({"AU12": 0.1}, ""),
        ({"AU20": 0.2}, "lips slightly stretched"),
        ({"AU20": 0.5}, "lips stretched"),
        ({"AU20": 0.9}, "lips strongly stretched"),
        ({"AU01": 0.5, "AU02": 0.5, "AU26": 0.5}, "inner brows and outer brows raised, jaw dropped"),
        ({"AU01": 0.5, "AU17": 0.2}, "inner brows raised, chin slightly raised"),
        ({"AU12": 0.8, "AUL12": 0.8, "AUR12": 0.75}, "lip corners strongly pulled up"),
        ({"AU12": 0.5, "AUL12": 0.1, "AUR12": 0.6}, "right lip corner pulled up"),
    ],
)
def test_describe_cues(intensities, text):
    fill = {side: intensities.get(unit, 0) for unit, sides in LEFT_RIGHT.items() for side in sides}
    assert describe_cues(au_vector(fill | intensities), limit=4) == text


def test_unknown_is_never_mentioned():
    assert describe_cues(np.full(41, np.nan, np.float32), limit=4) == ""
    assert describe_cues(au_vector({"AU12": 0.8}, fill=np.nan), limit=4) == "lip corners strongly pulled up"


def test_the_strongest_are_kept():
    intensities = {"AU04": 0.5, "AU09": 0.9, "AU17": 0.3, "AU25": 0.7}
    assert describe_cues(au_vector(intensities), limit=2) == "nose strongly wrinkled, lips strongly parted"


def test_join_words():
    assert [join_words(list("abc")[:n]) for n in (1, 2, 3)] == ["a", "a and b", "a, b and c"]


@given(
    st.sampled_from(EXPRESSIONS),
    st.lists(st.floats(0, 1), min_size=41, max_size=41),
    st.fixed_dictionaries({}, optional={"pose": st.sampled_from(["left", "right"])}),
    st.integers(0, 2**32),
)
def test_without_cues_is_the_caption_of_a_face_whose_action_units_nobody_knows(name, units, attributes, seed):
    caption, unknowing = (
        write_caption(name, action_units, attributes, np.random.default_rng(seed))
        for action_units in (np.array(units, np.float32), np.full(41, np.nan, np.float32))
    )
    assert without_cues(caption) == unknowing
