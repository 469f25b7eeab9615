"""Texts that can be used: asked for, kept, read with suspicion, and asked for again if they are no good."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import SecretStr

from synfer_ray.config import LanguageModelConfig
from synfer_ray.language.models import open_model
from synfer_ray.language.questions import NO_ANSWER, REFUSED_REQUEST, Answer, Question
from synfer_ray.prompts.answers import fault_of, tidy
from synfer_ray.storage.answers import FOLDER, AnswerStore
from synfer_ray.storage.fingerprint import fingerprint
from synfer_ray.storage.locations import Location, join

SEEDS = 2**31


@dataclass(frozen=True)
class Request:
    """A text that is wanted.

    Attributes:
        index: of the row; the answers of neighbours are kept together.
        instruction: all that the model is told.
        expression: what the text must name, basic or compound; None if it must name no expression.
        seed: of the row.
        image: an encoded picture to write about.
    """

    index: int
    instruction: str
    expression: str | None
    seed: int
    image: bytes | None = None


class Writer:
    """A language model whose answers are kept before anybody reads them.

    Every text follows from kept answers: who continues a run gets the texts that were there, whatever the
    model would say today.

    Args:
        model: the fingerprint of the model and its task, part of every answer's key.
        key: of the endpoint.
        output: the run's; answers are kept in it unless the settings name another folder.
        sees: whether the requests come with images.

    Raises:
        InputError: the model does not load.
    """

    def __init__(
        self, config: LanguageModelConfig, model: str, key: SecretStr, output: Location, sees: bool
    ) -> None:
        self.config = config
        self.by = [model, config.deciding()]
        self.model = open_model(config, key, sees)
        self.store = AnswerStore(config.answers or join(output, FOLDER))

    def write(self, requests: Sequence[Request]) -> list[Answer]:
        """Returns a text for each request, or the fault of the last answer to it.

        Raises:
            InputError, ConnectionError: as the model says.
        """
        span = min(request.index for request in requests), max(request.index for request in requests)
        kept = {key: Answer(*answer) for key, answer in self.store.read(*span).items()}
        texts: dict[int, Answer] = {}
        pending = list(requests)
        for attempt in range(self.config.attempts if self.config.temperature else 1):
            questions = [
                Question(request.instruction, (request.seed + attempt) % SEEDS, request.image)
                for request in pending
            ]
            answers = self._answers(questions, kept, span)
            texts |= {
                request.index: self._judge(answer, request) for request, answer in zip(pending, answers)
            }
            pending = [
                request
                for request, answer in zip(pending, answers)
                if is_kept(answer) and texts[request.index].fault
            ]
        return [texts[request.index] for request in requests]

    def _answers(
        self, questions: Sequence[Question], kept: dict[str, Answer], span: tuple[int, int]
    ) -> list[Answer]:
        """Asks what is not kept yet, and keeps what is answered."""
        keys = [self._key(question) for question in questions]
        new = {key: question for key, question in zip(keys, questions) if key not in kept}
        found = dict(zip(new, self.model.ask(list(new.values())))) if new else {}
        if fresh := {key: (answer.text, answer.fault) for key, answer in found.items() if is_kept(answer)}:
            kept |= {key: Answer(*answer) for key, answer in self.store.write(*span, fresh).items()}
        return [kept.get(key) or found[key] for key in keys]

    def _key(self, question: Question) -> str:
        image = hashlib.sha256(question.image).hexdigest() if question.image is not None else ""
        return fingerprint([*self.by, question.text, image, question.seed])

    def _judge(self, answer: Answer, request: Request) -> Answer:
        if answer.fault:
            return Answer(fault=answer.fault, detail=answer.detail)
        text = tidy(answer.text)
        fault, detail = fault_of(text, request.expression, self.config.max_words)
        return Answer(fault=fault, detail=detail) if fault else Answer(text)


def is_kept(answer: Answer) -> bool:
    """Whether the model has spoken: silence and a question that was not taken may pass."""
    return answer.fault not in (NO_ANSWER, REFUSED_REQUEST)
