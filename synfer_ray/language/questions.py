"""What a language model is asked and what comes back."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

NO_ANSWER, REFUSED_REQUEST, UNFINISHED = "no_answer", "refused_request", "unfinished"
"""Faults of an answer before anybody reads it: none came, the server did not take the question, or the model
stopped at its limit of tokens."""


@dataclass(frozen=True)
class Question:
    """One turn of a user.

    Attributes:
        text: the whole instruction.
        seed: what the answer is drawn with, 0 to 2**31 - 1.
        image: an encoded picture that the text is about.
    """

    text: str
    seed: int
    image: bytes | None = None


@dataclass(frozen=True)
class Answer:
    """A text, or why there is none that can be used."""

    text: str = ""
    fault: str = ""
    detail: str = ""


class LanguageModel(Protocol):
    """Anything that answers."""

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """Returns one answer for each question.

        Raises:
            InputError: the model cannot work with what it is asked.
            ConnectionError: it is out of reach.
        """
        ...
