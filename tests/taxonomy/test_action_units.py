import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synfer_ray.errors import InputError
from synfer_ray.taxonomy.action_units import ACTION_UNITS, FACS_NAMES, LEFT_RIGHT, au_dict, au_vector


def test_registry_is_that_of_opengraphau():
    assert len(ACTION_UNITS) == 41
    published = {0: "AU01", 6: "AU09", 7: "AU10", 9: "AU12", 12: "AU15", 17: "AU20", 18: "AU22", 21: "AU25",
                 24: "AU32", 25: "AU38", 26: "AU39", 27: "AUL01", 28: "AUR01", 32: "AUR04", 33: "AUL06",
                 37: "AUL12", 38: "AUR12", 40: "AUR14"}  # fmt: skip
    assert {index: ACTION_UNITS[index] for index in published} == published
    assert FACS_NAMES["AU12"] == "lip corner puller"
    assert FACS_NAMES["AUR04"] == "right brow lowerer"


def test_left_right_covers_exactly_the_sided_units():
    assert [unit for pair in LEFT_RIGHT.values() for unit in pair] == list(ACTION_UNITS[27:])
    for main, (left, right) in LEFT_RIGHT.items():
        assert left[3:] == right[3:] == main[2:]
        assert main in ACTION_UNITS


@given(st.dictionaries(st.sampled_from(ACTION_UNITS), st.floats(2**-7, 1, width=32)))
def test_vector_and_dict_are_inverse(intensities):
    vector = au_vector(intensities)
    assert vector.shape == (41,) and vector.dtype == np.float32
    assert au_dict(vector) == intensities


def test_unknown_is_not_zero():
    vector = au_vector({"AU12": 0.8}, fill=np.nan)
    assert np.isnan(vector).sum() == 40
    assert au_dict(vector) == {"AU12": pytest.approx(0.8)}


def test_threshold():
    assert list(au_dict(au_vector({"AU01": 0.5, "AU12": 0.8}), threshold=0.5)) == ["AU12"]


def test_bad_input():
    with pytest.raises(InputError, match=r"'AU3'.*choices: AU01"):
        au_vector({"AU3": 0.5})
    with pytest.raises(InputError, match=r"AU12 is 4\.0"):
        au_vector({"AU12": 4.0})
