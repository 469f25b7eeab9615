import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synfer_ray.errors import InputError
from synfer_ray.taxonomy.expressions import (
    EXPRESSIONS,
    LABEL_ORDERS,
    parse_expression,
    resolve_label_order,
    to_expressions,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Happiness", "happy"),
        ("HAPPY", "happy"),
        ("sadness", "sad"),
        ("Surprised", "surprise"),
        ("afraid", "fear"),
        ("fearful", "fear"),
        (" disgusted ", "disgust"),
        ("Angry", "anger"),
        ("no_emotion", "neutral"),
    ],
)
def test_parse_expression(name, expected):
    assert parse_expression(name) == expected


def test_unknown_expression_names_value_nearest_and_choices():
    with pytest.raises(InputError, match=r"'suprise'.*did you mean 'surprise'.*neutral, happy, sad"):
        parse_expression("suprise")


def test_published_orders():
    """Spot checks against the label lists of the datasets themselves."""
    assert EXPRESSIONS == ("neutral", "happy", "sad", "surprise", "fear", "disgust", "anger")
    assert LABEL_ORDERS["affectnet8"].index("contempt") == 7
    assert LABEL_ORDERS["fer2013"][3] == "happy" and LABEL_ORDERS["fer2013"][6] == "neutral"
    assert LABEL_ORDERS["rafdb"][0] == "surprise" and LABEL_ORDERS["rafdb"][5] == "anger"
    assert (
        LABEL_ORDERS["ferplus"][3:7] == ("sad", "anger", "disgust", "fear")
        and len(LABEL_ORDERS["ferplus"]) == 10
    )
    assert list(LABEL_ORDERS["emotiefflib"])[:2] == ["anger", "contempt"]
    for order in LABEL_ORDERS.values():
        assert resolve_label_order(order) == order


@given(st.permutations(EXPRESSIONS), st.integers(0, 2**32 - 1))
def test_permuting_classes_and_names_together_changes_nothing(order, seed):
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(7), size=(2, 3))
    permuted = np.stack([probabilities[..., EXPRESSIONS.index(name)] for name in order], axis=-1)
    np.testing.assert_allclose(to_expressions(permuted, order), probabilities, rtol=1e-6)


def test_other_classes_are_dropped_and_the_rest_renormalised():
    votes = np.array([[5, 0, 0, 3, 0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0, 0, 10, 0, 0]])
    result = to_expressions(votes, "ferplus")
    expected = {"neutral": 5 / 8, "sad": 3 / 8}
    np.testing.assert_allclose(result[0], [expected.get(name, 0) for name in EXPRESSIONS])
    np.testing.assert_allclose(result[1], 1 / 7)


def test_float32_stays_float32():
    assert to_expressions(np.full((4, 8), 0.125, np.float32), "affectnet8").dtype == np.float32


def test_label_order_in_any_spelling():
    names = ["Angry", "Disgusted", "Fearful", "Happiness", "Sadness", "Surprised", "Neutral", "Contempt"]
    assert resolve_label_order(names) == (*LABEL_ORDERS["fer2013"], "contempt")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("rafbd", "did you mean 'rafdb'"),
        (["neutral", "happy", "sad", "surprise", "fear", "disgust"], "lacks anger"),
        ([*EXPRESSIONS, "Happiness"], "names happy twice"),
    ],
)
def test_bad_label_orders(spec, message):
    with pytest.raises(InputError, match=message):
        resolve_label_order(spec)


def test_class_count_must_match_the_order():
    with pytest.raises(InputError, match="7 probabilities for a label order of 8"):
        to_expressions(np.ones(7), "affectnet8")
