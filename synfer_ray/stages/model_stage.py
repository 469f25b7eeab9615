"""Bad input of a stage that loads models, told once and in plain words."""

from functools import wraps
from typing import Any, TypeVar

from synfer_ray.errors import InputError

Stage = TypeVar("Stage", bound=type)


def model_stage(stage: Stage) -> Stage:
    """Class decorator of a Ray actor: an InputError of the constructor is raised by the first call instead.

    A failed task ends the run with its message. A failed constructor would end it too, but only after Ray has
    printed a page of its internals for every actor of the pool.
    """
    load, work = stage.__init__, stage.__call__  # type: ignore[misc]

    @wraps(load)
    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:
        self.refusal = None
        try:
            load(self, *args, **kwargs)
        except InputError as error:
            self.refusal = error

    @wraps(work)
    def __call__(self: Any, table: Any) -> Any:
        if self.refusal:
            raise self.refusal
        return work(self, table)

    stage.__init__, stage.__call__ = __init__, __call__  # type: ignore[method-assign, misc]
    return stage


def loaded(stage: Any) -> Any:
    """Returns a stage that is used without Ray; raises the InputError of its constructor instead, if any."""
    if stage.refusal:
        raise stage.refusal
    return stage
