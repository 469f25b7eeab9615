"""What a person sees when the input is wrong: the offending value and the way out."""

import difflib
import importlib
from collections.abc import Iterable
from types import ModuleType


class InputError(ValueError):
    """Bad input from the user: jobs print its message without a traceback and exit with code 2."""


FAILED, BAD_INPUT, PARTIAL, INTERRUPTED = 1, 2, 3, 130
"""Exit codes of the jobs; 0 means done."""


class RunFailed(RuntimeError):
    """A run that ended without what it was asked for: jobs print its message without a traceback.

    Attributes:
        exit_code: `FAILED`; `PARTIAL` if the output is whole but less than was asked for.
    """

    def __init__(self, message: str, exit_code: int = FAILED):
        super().__init__(message)
        self.exit_code = exit_code


def nearest(value: str, choices: Iterable[str]) -> str:
    """Returns ` (did you mean 'x'?)` for the closest of `choices`, or an empty string."""
    close = difflib.get_close_matches(value, list(choices), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def choose(value: str, choices: Iterable[str], what: str) -> str:
    """Returns `value` if it is one of `choices`.

    Raises:
        InputError: naming the value, the nearest choice and all choices.
    """
    choices = list(choices)
    if value in choices:
        return value
    raise InputError(f"unknown {what} {value!r}{nearest(str(value), choices)}; choices: {', '.join(choices)}")


def require(module: str, extra: str) -> ModuleType:
    """Imports an optional library.

    Raises:
        InputError: with the pip line that installs the extra, or the name of what the library itself lacks.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name and error.name.split(".")[0] != module.split(".")[0]:
            raise InputError(
                f"{module} cannot be used: it needs {error.name}, which is not installed"
            ) from error
        raise InputError(f"{module} is not installed; run: pip install 'synfer-ray[{extra}]'") from error
