import numpy as np
import pytest

from synfer_ray.prompts.cues import CUES, describe_cues, join_words
from synfer_ray.taxonomy.action_units import ACTION_UNITS, LEFT_RIGHT, au_vector


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
