import numpy as np
import pytest

from synfer_ray.errors import InputError
from synfer_ray.prompts.attributes import person_noun, sample_attributes


def test_quotas_are_met():
    rng = np.random.default_rng(0)
    quotas = {"gender": {"female": 3, "male": 1}, "age": {"old": 1, "child": 0}}
    rows = [sample_attributes(quotas, rng) for _ in range(2000)]
    assert np.mean([row["gender"] == "female" for row in rows]) == pytest.approx(0.75, abs=0.04)
    assert {row["age"] for row in rows} == {"old"}


def test_same_seed_same_attributes_and_no_quotas_no_attributes():
    quotas = {"hair": {"black": 1, "brown": 1, "red": 1}, "pose": {"left": 1, "right": 1}}
    first, second = (sample_attributes(quotas, np.random.default_rng(5)) for _ in range(2))
    assert first == second
    assert list(first) == ["hair", "pose"]
    assert sample_attributes({}, np.random.default_rng(0)) == {}


@pytest.mark.parametrize(
    ("quotas", "message"),
    [
        ({"gendr": {"female": 1}}, "unknown attribute 'gendr'.*did you mean 'gender'"),
        ({"hair": {"blonde": 1}}, "value of attribute hair 'blonde'.*did you mean 'blond'"),
        ({"hair": {"blond": -1, "red": 2}}, "weights are >= 0"),
        ({"hair": {"blond": 0}}, "positive sum"),
    ],
)
def test_bad_quotas(quotas, message):
    with pytest.raises(InputError, match=message):
        sample_attributes(quotas, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("attributes", "noun"),
    [
        ({}, "person"),
        ({"gender": "female"}, "woman"),
        ({"gender": "male", "age": "child"}, "boy"),
        ({"age": "child"}, "child"),
        ({"gender": "male", "age": "adult"}, "man"),
        ({"gender": "female", "age": "middle-aged"}, "middle-aged woman"),
        ({"age": "old", "hair": "grey"}, "old person"),
    ],
)
def test_person_noun(attributes, noun):
    assert person_noun(attributes) == noun
