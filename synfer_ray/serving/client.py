"""The served calibrator as a function of this program: image files in, calibrated expressions out."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain

import numpy as np

from synfer_ray.errors import InputError
from synfer_ray.remote.model import RemoteModel, RequestRefused
from synfer_ray.serving.contract import MODEL, VERSION
from synfer_ray.storage.fingerprint import fingerprint
from synfer_ray.taxonomy.expressions import EXPRESSIONS

OUTPUTS = ("label", "probabilities", "voters", "agreement", "decision", "reason")
BAD_IMAGE = ("400", "413", "415", "422", "INVALID_ARGUMENT")
"""Answers that may be about one image of the request."""


@dataclass(frozen=True)
class Calibration:
    """What the service says of one face; `decision` and `reason` as in `calibration.vote`.

    Attributes:
        probabilities: the voters' average by expression.
        voters: the probabilities of each voter by name and expression.
        attention: a PNG picture of where FERAnno looked, if it was asked for.
    """

    label: str
    probabilities: dict[str, float]
    voters: dict[str, dict[str, float]]
    agreement: float
    decision: str
    reason: str
    attention: bytes | None = None


class CalibratorClient:
    """A connection to the service, for any thread.

    Args:
        url: `http://HOST:PORT` or `grpc://HOST:PORT`, also `https://` and `grpcs://`.
        token: the bearer token, if the service demands one.
        timeout: seconds for one attempt of a request.
        retries: attempts after the first, when the service is overloaded or fails; its Retry-After counts.
        concurrency: requests under way at once.
        batch_size: images a request; the service may allow fewer.

    Raises:
        InputError: no calibrator answers at the URL, or it wants a token.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        timeout: float = 30.0,
        retries: int = 6,
        concurrency: int = 4,
        batch_size: int = 8,
    ) -> None:
        if concurrency < 1 or batch_size < 1:
            raise InputError(f"concurrency={concurrency} batch_size={batch_size}: at least 1 each is needed")
        self._model = RemoteModel(url, MODEL, VERSION, token, timeout, retries)
        stated = self.parameters()
        try:
            self.expressions = tuple(stated["expressions"].split(","))
            self.voters = tuple(stated["voters"].split(","))
            self.batch_size = min(batch_size, int(stated["max_faces"]))
        except (KeyError, ValueError) as error:
            raise InputError(f"{self._model} is no calibrator: it does not state {error}") from error
        if set(self.expressions) != set(EXPRESSIONS):
            raise InputError(f"{self._model} knows other expressions: {', '.join(self.expressions)}")
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="calibrate")

    def calibrate(
        self,
        images: Sequence[bytes],
        labels: Sequence[str | None] | None = None,
        attention: bool = False,
    ) -> list[Calibration]:
        """Asks for the expressions of faces.

        Args:
            images: PNG, JPEG, WEBP or BMP files.
            labels: the expression that each face is said to show, None where nobody says.
            attention: also ask where FERAnno looked.

        Raises:
            RequestRefused: the service refuses an image (an InputError).
            ConnectionError: it does not answer, or stays overloaded, in every attempt.
        """
        answers = self.calibrate_each(images, labels, attention)
        for number, answer in enumerate(answers):
            if isinstance(answer, RequestRefused):
                raise RequestRefused(f"image {number}: {answer}", answer.status)
        return answers  # type: ignore[return-value]

    def calibrate_each(
        self,
        images: Sequence[bytes],
        labels: Sequence[str | None] | None = None,
        attention: bool = False,
    ) -> list[Calibration | RequestRefused]:
        """Like `calibrate`, but an image that the service refuses spoils no other: it gets the refusal.

        Raises:
            RequestRefused: all requests are refused, for instance for want of a token.
            ConnectionError: the service does not answer.
        """
        claims = ["" if label is None else label for label in labels or [None] * len(images)]
        if len(claims) != len(images):
            raise InputError(f"{len(claims)} labels for {len(images)} images")
        spans = [slice(first, first + self.batch_size) for first in range(0, len(images), self.batch_size)]
        futures = [self._threads.submit(self._batch, images[span], claims[span], attention) for span in spans]
        return list(chain.from_iterable(future.result() for future in futures))

    def parameters(self) -> dict[str, str]:
        """Asks what the service states of itself: its classes, voters, limits, rules and models.

        Raises:
            InputError: it does not answer, or states nothing.
        """
        try:
            parameters = self._model.config()["parameters"]
            return {str(key): str(value["string_value"]) for key, value in parameters.items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise InputError(f"{self._model} is no calibrator: it states no parameters") from error

    def fingerprint(self) -> str:
        """Asks what the answers depend on; a service with another fingerprint may answer otherwise."""
        return fingerprint(
            {key: value for key, value in self.parameters().items() if not key.startswith("max_")}
        )

    def close(self) -> None:
        """Ends the threads of this client."""
        self._threads.shutdown(cancel_futures=True)

    def __enter__(self) -> "CalibratorClient":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _batch(
        self, images: Sequence[bytes], labels: Sequence[str], attention: bool
    ) -> Sequence[Calibration | RequestRefused]:
        try:
            return self._ask(images, labels, attention)
        except RequestRefused as refusal:
            if refusal.status not in BAD_IMAGE:
                raise
            if len(images) == 1:
                return [refusal]
        singly = [self._batch([image], [label], attention) for image, label in zip(images, labels)]
        return list(chain.from_iterable(singly))

    def _ask(self, images: Sequence[bytes], labels: Sequence[str], attention: bool) -> list[Calibration]:
        inputs = {
            "image": ("BYTES", np.array(images, dtype=object)),
            "label": ("BYTES", np.array([label.encode() for label in labels], dtype=object)),
        }
        answer = self._model.infer(inputs, [*OUTPUTS, "attention"] if attention else OUTPUTS)
        shapes = {
            "probabilities": (len(images), len(self.expressions)),
            "voters": (len(images), len(self.voters), len(self.expressions)),
        }
        for name, array in answer.items():
            if array.shape != shapes.get(name, (len(images),)):
                raise RequestRefused(f"{self._model}: {name} has the shape {list(array.shape)}", status="")
        return [
            Calibration(
                label=answer["label"][place].decode(),
                probabilities=self._by_expression(answer["probabilities"][place]),
                voters={
                    name: self._by_expression(opinion)
                    for name, opinion in zip(self.voters, answer["voters"][place])
                },
                agreement=float(answer["agreement"][place]),
                decision=answer["decision"][place].decode(),
                reason=answer["reason"][place].decode(),
                attention=answer["attention"][place] if attention else None,
            )
            for place in range(len(images))
        ]

    def _by_expression(self, values: np.ndarray) -> dict[str, float]:
        by_name = dict(zip(self.expressions, values.tolist()))
        return {name: by_name[name] for name in EXPRESSIONS}
