"""One model of a server, asked with retries from any thread."""

import os
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

from numpy.typing import NDArray

from synfer_ray.config import RemoteModelConfig
from synfer_ray.errors import InputError, choose
from synfer_ray.remote.transports import Failure, GrpcTransport, HttpTransport, Inputs, Transport

Answer = TypeVar("Answer")

SCHEMES = ("http", "https", "grpc", "grpcs")
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 30.0
"""Seconds before the first retry, and at most before any; between them the pause doubles."""


class RequestRefused(InputError):
    """The server says that the request is wrong; `status` is its HTTP status or the name of the gRPC code."""

    def __init__(self, message: str, status: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Tensor:
    """What a model states of an input or output; -1 stands for any size."""

    datatype: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.datatype} {list(self.shape)}"

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether an array of this shape fits; -1 on either side is any size."""
        pairs = zip(shape, self.shape)
        return len(shape) == len(self.shape) and all(a == b or -1 in (a, b) for a, b in pairs)


@dataclass(frozen=True)
class Metadata:
    """The inputs and outputs of a model by name, and the document that says so."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    document: dict[str, Any]


class RemoteModel:
    """A model behind a URL; every thread that calls has a connection of its own.

    Args:
        url: `http://HOST:PORT`, `https://...`, `grpc://...` or `grpcs://...`.
        version: the server's choice if empty.
        token: sent as a bearer token.
        timeout: seconds for one attempt.
        retries: attempts after the first. Only overload, failures of the server and of the connection are
            tried again, after the pause that the server asks for, or one that doubles.

    Raises:
        InputError: a URL of another form, or a transport that is not installed.
    """

    def __init__(
        self,
        url: str,
        name: str,
        version: str = "",
        token: str | None = None,
        timeout: float = 30.0,
        retries: int = 4,
    ) -> None:
        self.url, self.name, self.version, self.retries = url, name, version, retries
        parts = urlsplit(url)
        scheme = choose(parts.scheme, SCHEMES, f"scheme of the server URL {url!r}:")
        if not parts.netloc or "@" in parts.netloc or parts.query or parts.fragment:
            raise InputError(f"server URL {url!r} is not of the form {scheme}://HOST:PORT")
        transport = HttpTransport if scheme.startswith("http") else GrpcTransport
        headers = {"authorization": f"Bearer {token}"} if token else {}
        address = parts.netloc + parts.path.rstrip("/")
        self._connect: Callable[[], Transport] = lambda: transport(
            address, scheme.endswith("s"), timeout, headers
        )
        self._thread = threading.local()
        self._thread.transport = self._connect()  # a missing library is told now

    def metadata(self) -> Metadata:
        """Asks what the model takes and returns.

        Raises:
            InputError: nobody answers at the URL, no such model is there, or the answer cannot be read.
        """
        document = self._describe(lambda transport: transport.metadata(self.name, self.version))
        try:
            inputs, outputs = (
                {
                    tensor["name"]: Tensor(tensor["datatype"], tuple(int(size) for size in tensor["shape"]))
                    for tensor in document[side]
                }
                for side in ("inputs", "outputs")
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"{self} states no inputs and outputs that can be read: {error!r}") from error
        return Metadata(inputs, outputs, document)

    def config(self) -> dict[str, Any]:
        """Asks for the model's configuration: an extension of Triton, which our server has.

        Raises:
            InputError: nobody answers at the URL, or no such model is there.
        """
        return self._describe(lambda transport: transport.config(self.name, self.version))

    def infer(self, inputs: Inputs, outputs: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Returns the named outputs.

        Raises:
            RequestRefused: the server says that the request is wrong, or its answer lacks an output.
            ConnectionError: no answer in any attempt.
        """
        answer = self._retrying(lambda transport: transport.infer(self.name, self.version, inputs, outputs))
        arrays = {name: array for name, array in answer.items() if array is not None}
        if absent := [name for name in outputs if name not in arrays]:
            raise RequestRefused(f"{self}: the answer lacks {', '.join(absent)}", status="")
        return arrays

    def __str__(self) -> str:
        return f"model {self.name!r} at {self.url}"

    def _describe(self, ask: Callable[[Transport], dict[str, Any]]) -> dict[str, Any]:
        try:
            return self._retrying(ask)
        except ConnectionError as error:
            raise InputError(str(error)) from error

    def _retrying(self, ask: Callable[[Transport], Answer]) -> Answer:
        pause = FIRST_PAUSE
        for attempts_left in reversed(range(self.retries + 1)):
            try:
                return ask(self._transport())
            except Failure as failure:
                if not failure.transient:
                    raise RequestRefused(f"{self}: {failure}", failure.status) from failure
                if not attempts_left:
                    raise ConnectionError(
                        f"{self} does not answer, tried {self.retries + 1} times: {failure}"
                    ) from failure
                if not failure.status:
                    del self._thread.transport  # the connection is of no use any more
                wait = max(failure.retry_after, pause * random.uniform(0.5, 1.0))
                time.sleep(min(wait, LONGEST_PAUSE))
                pause *= 2
        raise AssertionError("the last attempt returns or raises")

    def _transport(self) -> Transport:
        if not hasattr(self._thread, "transport"):
            self._thread.transport = self._connect()
        return self._thread.transport


def open_remote(remote: RemoteModelConfig) -> RemoteModel:
    """Opens the model that the settings describe, with the token in the environment variable they name.

    Raises:
        InputError: a malformed URL, a number below its least, or a variable that is not set.
    """
    if remote.batch_size < 1 or remote.retries < 0 or remote.timeout <= 0:
        raise InputError(
            f"batch_size={remote.batch_size} retries={remote.retries} timeout={remote.timeout}: "
            "at least 1 image a request, 0 retries and some time are needed"
        )
    token = os.environ.get(remote.token_env)
    if remote.token_env and not token:
        raise InputError(f"the environment variable {remote.token_env}, named by token_env, is not set")
    return RemoteModel(remote.url, remote.model, remote.version, token, remote.timeout, remote.retries)
