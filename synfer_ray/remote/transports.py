"""One connection to a server of the Open Inference Protocol, over HTTP or gRPC; for one thread at a time."""

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any, Protocol

from numpy.typing import NDArray

from synfer_ray.errors import InputError, require

Inputs = Mapping[str, tuple[str, NDArray[Any]]]
"""Name -> the protocol's datatype and the array; BYTES are arrays of objects."""

TRANSIENT = {
    *("408", "429", "500", "502", "503", "504"),
    *("ABORTED", "DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "UNKNOWN"),
}
"""What a server answers when it is overloaded or has failed: the same request may succeed later."""
UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, struct.error)
"""What tritonclient raises on an answer that breaks the protocol."""


class Failure(Exception):
    """A request without an answer.

    Attributes:
        status: the HTTP status or the name of the gRPC code; empty if the connection failed.
        retry_after: seconds that the server asks to wait, 0 if it does not say.
    """

    def __init__(self, message: str, status: str = "", retry_after: float = 0.0) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after

    @property
    def transient(self) -> bool:
        """Whether the same request may succeed later."""
        return self.status in TRANSIENT or not self.status


class Transport(Protocol):
    """What both protocols offer; every method raises `Failure`."""

    def metadata(self, model: str, version: str) -> dict[str, Any]:
        """Returns the name, inputs and outputs of a model."""
        ...

    def config(self, model: str, version: str) -> dict[str, Any]:
        """Returns the configuration of a model (an extension of Triton)."""
        ...

    def infer(
        self, model: str, version: str, inputs: Inputs, outputs: Sequence[str]
    ) -> dict[str, NDArray[Any] | None]:
        """Returns the named outputs; None for one that the answer lacks."""
        ...


class HttpTransport:
    """REST, with the binary extension where the server has it.

    Args:
        address: host, port and path prefix.
        timeout: seconds without a byte after which a request fails.
    """

    def __init__(self, address: str, secure: bool, timeout: float, headers: Mapping[str, str]) -> None:
        self.library = require("tritonclient.http", extra="triton")
        from gevent.ssl import create_default_context

        transport = self

        class Client(self.library.InferenceServerClient):  # type: ignore[name-defined, misc]
            def _post(self, *args: Any, **kwargs: Any) -> Any:
                response = super()._post(*args, **kwargs)
                transport.retry_after = response.get("retry-after", "")  # its exceptions leave headers out
                return response

        self.client = Client(
            address,
            ssl=secure,
            ssl_context_factory=create_default_context if secure else None,
            connection_timeout=timeout,
            network_timeout=timeout,
        )
        self.headers = headers
        self.retry_after = ""

    def metadata(self, model: str, version: str) -> dict[str, Any]:
        """Returns the name, inputs and outputs of a model."""
        with self._failures():
            return self.client.get_model_metadata(model, version, headers=dict(self.headers))

    def config(self, model: str, version: str) -> dict[str, Any]:
        """Returns the configuration of a model."""
        with self._failures():
            return self.client.get_model_config(model, version, headers=dict(self.headers))

    def infer(
        self, model: str, version: str, inputs: Inputs, outputs: Sequence[str]
    ) -> dict[str, NDArray[Any] | None]:
        """Returns the named outputs.

        Raises:
            InputError: BYTES for a server that takes JSON only.
        """
        with self._failures():
            binary = "binary_tensor_data" in self._extensions
        if not binary and any(datatype == "BYTES" for datatype, _ in inputs.values()):
            raise InputError("the server lacks the binary tensor extension, which images as bytes need")
        with self._failures():
            result = self.client.infer(
                model,
                [self._tensor(name, *content, binary) for name, content in inputs.items()],
                version,
                [self.library.InferRequestedOutput(name, binary_data=binary) for name in outputs],
                headers=dict(self.headers),
            )
            return {name: result.as_numpy(name) for name in outputs}

    @cached_property
    def _extensions(self) -> Sequence[str]:
        return self.client.get_server_metadata(headers=dict(self.headers)).get("extensions", [])

    def _tensor(self, name: str, datatype: str, array: NDArray[Any], binary: bool) -> Any:
        tensor = self.library.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array, binary_data=binary)
        return tensor

    @contextmanager
    def _failures(self) -> Iterator[None]:
        from geventhttpclient.response import HTTPParseError
        from tritonclient.utils import InferenceServerException

        self.retry_after = ""
        try:
            yield
        except InferenceServerException as error:
            raise Failure(
                str(error.message()), error.status() or "invalid", _seconds(self.retry_after)
            ) from error
        except (OSError, HTTPParseError) as error:
            raise Failure(f"{type(error).__name__} {error}".strip()) from error
        except UNREADABLE as error:
            raise Failure(f"an answer that cannot be read: {error}", "invalid") from error


class GrpcTransport:
    """The GRPCInferenceService.

    Args:
        address: host and port.
        timeout: seconds that a request may take.
    """

    def __init__(self, address: str, secure: bool, timeout: float, headers: Mapping[str, str]) -> None:
        self.library = require("tritonclient.grpc", extra="triton")
        self.client = self.library.InferenceServerClient(address, ssl=secure)
        self.options = {"headers": dict(headers), "client_timeout": timeout}

    def metadata(self, model: str, version: str) -> dict[str, Any]:
        """Returns the name, inputs and outputs of a model."""
        with self._failures():
            return self.client.get_model_metadata(model, version, as_json=True, **self.options)

    def config(self, model: str, version: str) -> dict[str, Any]:
        """Returns the configuration of a model."""
        with self._failures():
            return self.client.get_model_config(model, version, as_json=True, **self.options)["config"]

    def infer(
        self, model: str, version: str, inputs: Inputs, outputs: Sequence[str]
    ) -> dict[str, NDArray[Any] | None]:
        """Returns the named outputs."""
        with self._failures():
            result = self.client.infer(
                model,
                [self._tensor(name, *content) for name, content in inputs.items()],
                version,
                outputs=[self.library.InferRequestedOutput(name) for name in outputs],
                **self.options,
            )
            return {name: result.as_numpy(name) for name in outputs}

    def _tensor(self, name: str, datatype: str, array: NDArray[Any]) -> Any:
        tensor = self.library.InferInput(name, list(array.shape), datatype)
        tensor.set_data_from_numpy(array)
        return tensor

    @contextmanager
    def _failures(self) -> Iterator[None]:
        from tritonclient.utils import InferenceServerException

        try:
            yield
        except InferenceServerException as error:
            status = str(error.status() or "invalid").removeprefix("StatusCode.")
            raise Failure(str(error.message()), status, _retry_after(error.__context__)) from error
        except UNREADABLE as error:
            raise Failure(f"an answer that cannot be read: {error}", "invalid") from error


def _retry_after(error: Any) -> float:
    """Reads the trailing metadata of a grpc.RpcError."""
    trailing = error.trailing_metadata() if hasattr(error, "trailing_metadata") else None
    return _seconds(dict(trailing or ()).get("retry-after", ""))


def _seconds(text: str | bytes) -> float:
    """Reads a Retry-After in seconds; its other form, a date, counts as none."""
    text = text.decode() if isinstance(text, bytes) else text
    return float(text) if text.isdecimal() else 0.0
