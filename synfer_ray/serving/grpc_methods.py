"""The gRPC entrance: a deployment's methods that Ray Serve's proxy calls with a message's bytes."""

import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError, Message
from ray.serve.grpc_util import RayServegRPCContext

from synfer_ray.serving import contract
from synfer_ray.serving.oip import inference_pb2 as messages
from synfer_ray.serving.oip.grpc import read_request, write_response
from synfer_ray.serving.oip.request import check_model
from synfer_ray.serving.refusal import Refusal, bad_request
from synfer_ray.serving.service import CalibratorService

CODES = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    503: grpc.StatusCode.UNAVAILABLE,
}
"""The gRPC codes of refusals; the others are INVALID_ARGUMENT."""

Context = RayServegRPCContext
Request = TypeVar("Request", bound=Message)


class GrpcMethods:
    """The methods of `inference.GRPCInferenceService`; a refusal becomes the code and details of the call."""

    service: CalibratorService

    async def ServerLive(self, request: bytes, grpc_context: Context) -> Message:
        """Whether the server answers; needs no token."""
        return await self._answer(
            request, grpc_context, messages.ServerLiveRequest, self._live, open_to_all=True
        )

    async def ServerReady(self, request: bytes, grpc_context: Context) -> Message:
        """Whether the model is loaded and has judged a face; needs no token."""
        return await self._answer(
            request, grpc_context, messages.ServerReadyRequest, self._ready, open_to_all=True
        )

    async def ServerMetadata(self, request: bytes, grpc_context: Context) -> Message:
        """Name, version and extensions of the server."""
        return await self._answer(request, grpc_context, messages.ServerMetadataRequest, self._server)

    async def ModelReady(self, request: bytes, grpc_context: Context) -> Message:
        """Whether the model is ready."""
        return await self._answer(request, grpc_context, messages.ModelReadyRequest, self._model_ready)

    async def ModelMetadata(self, request: bytes, grpc_context: Context) -> Message:
        """The model's inputs and outputs."""
        return await self._answer(request, grpc_context, messages.ModelMetadataRequest, self._metadata)

    async def ModelConfig(self, request: bytes, grpc_context: Context) -> Message:
        """The model's configuration."""
        return await self._answer(request, grpc_context, messages.ModelConfigRequest, self._config)

    async def ModelInfer(self, request: bytes, grpc_context: Context) -> Message:
        """Judges faces."""
        return await self._answer(request, grpc_context, messages.ModelInferRequest, self._infer)

    async def _live(self, request: Any) -> Message:
        return messages.ServerLiveResponse(live=True)

    async def _ready(self, request: Any) -> Message:
        return messages.ServerReadyResponse(ready=True)

    async def _server(self, request: Any) -> Message:
        return messages.ServerMetadataResponse(**contract.server_metadata())

    async def _model_ready(self, request: messages.ModelReadyRequest) -> Message:
        _check(request.name, request.version)
        return messages.ModelReadyResponse(ready=True)

    async def _metadata(self, request: messages.ModelMetadataRequest) -> Message:
        _check(request.name, request.version)
        metadata = contract.model_metadata(self.service.config, self.service.models)
        return ParseDict(metadata, messages.ModelMetadataResponse(), ignore_unknown_fields=True)

    async def _config(self, request: messages.ModelConfigRequest) -> Message:
        _check(request.name, request.version)
        config = contract.model_config(self.service.config, self.service.models)
        return ParseDict({"config": config}, messages.ModelConfigResponse())

    async def _infer(self, request: messages.ModelInferRequest) -> Message:
        _check(request.model_name, request.model_version)
        asked = read_request(request)
        outputs = await self.service.infer(asked)
        return write_response(asked.id, contract.MODEL, contract.VERSION, outputs)

    async def _answer(
        self,
        data: bytes,
        context: Context,
        kind: type[Request],
        method: Callable[[Request], Awaitable[Message]],
        open_to_all: bool = False,
    ) -> Message:
        started, status = time.monotonic(), 200
        access, limits = self.service.access, self.service.config.limits
        try:
            access.check_peer(context.peer())
            if not open_to_all:
                access.check_token(str(dict(context.invocation_metadata()).get("authorization", "")))
            if len(data) > limits.max_body_bytes:
                raise Refusal(413, f"the message has more than {limits.max_body_bytes} bytes")
            try:
                request = kind.FromString(data)
            except DecodeError as error:
                raise bad_request(f"the message is not a {kind.__name__}") from error
            return await method(request)
        except Refusal as refusal:
            status = refusal.status
            context.set_code(CODES.get(status, grpc.StatusCode.INVALID_ARGUMENT))
            context.set_details(refusal.message)
            return messages.ServerLiveResponse()  # not sent: the code is
        finally:
            self.service.metrics.request("grpc", status, time.monotonic() - started)


def _check(name: str, version: str) -> None:
    check_model(name, version, contract.MODEL, [contract.VERSION])
