import pickle

import pytest

from synfer_ray.errors import InputError
from synfer_ray.stages.model_stage import model_stage


@model_stage
class Doubler:
    def __init__(self, factor: int, limit: int = 10):
        if factor > limit:
            raise InputError(f"factor {factor} is above {limit}")
        self.factor = factor

    def __call__(self, table: int) -> int:
        return self.factor * table


def test_a_stage_that_loads_works_as_before():
    assert Doubler(2)(21) == 42
    assert Doubler.__name__ == "Doubler"


def test_bad_input_of_the_constructor_is_raised_by_the_call():
    stage = Doubler(7, limit=5)
    for attempt in (stage, pickle.loads(pickle.dumps(stage))):
        with pytest.raises(InputError, match="factor 7 is above 5"):
            attempt(1)


def test_other_errors_still_stop_the_constructor():
    with pytest.raises(TypeError):
        Doubler("a")
