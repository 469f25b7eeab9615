"""The paths of the Open Inference Protocol's REST form, and Triton's model configuration."""

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from synfer_ray.serving import contract
from synfer_ray.serving.body import read_body
from synfer_ray.serving.oip.request import check_model
from synfer_ray.serving.oip.rest import HEADER_LENGTH, read_request, write_response
from synfer_ray.serving.service import CalibratorService

ONE_FACE = {
    "inputs": [
        {"name": "image", "shape": [1], "datatype": "BYTES", "data": ["<base64 of a PNG file>"]},
        {"name": "label", "shape": [1], "datatype": "BYTES", "data": ["happy"]},
    ]
}
INFER_BODY = {
    "description": "Inputs `image` (BYTES [N]: image files; in JSON as base64) or `pixels` (UINT8 [N,H,W,3], "
    "or FP32 in 0..1), and optionally `label` (BYTES [N]; empty for none). Outputs are all but `attention` "
    "unless named. The binary tensor extension works in both directions.",
    "required": True,
    "content": {
        "application/json": {"schema": {"type": "object"}, "example": ONE_FACE},
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
    },
}


def oip_routes(service: CalibratorService) -> APIRouter:
    """Returns the routes under /v2."""
    router = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])

    def known(model: str, version: str = "") -> None:
        check_model(model, version, contract.MODEL, [contract.VERSION])

    @router.get("/health/live", summary="Whether the server answers")
    async def live() -> dict[str, bool]:
        return {"live": True}

    @router.get("/health/ready", summary="Whether the model is loaded and has judged a face")
    async def ready() -> dict[str, bool]:
        return {"ready": True}

    @router.get("", summary="Server metadata")
    async def server() -> dict[str, Any]:
        return contract.server_metadata()

    for prefix in ("/models/{model}", "/models/{model}/versions/{version}"):

        @router.get(prefix, summary="Model metadata")
        async def metadata(model: str, version: str = "") -> dict[str, Any]:
            known(model, version)
            return contract.model_metadata(service.config, service.models)

        @router.get(f"{prefix}/ready", summary="Whether the model is ready")
        async def model_ready(model: str, version: str = "") -> dict[str, Any]:
            known(model, version)
            return {"name": model, "ready": True}

        @router.get(f"{prefix}/config", summary="Model configuration")
        async def config(model: str, version: str = "") -> dict[str, Any]:
            known(model, version)
            return contract.model_config(service.config, service.models)

        @router.post(f"{prefix}/infer", summary="Judge faces", openapi_extra={"requestBody": INFER_BODY})
        async def infer(request: Request, model: str, version: str = "") -> Response:
            known(model, version)
            limits = service.config.limits
            body = await read_body(request, limits)
            asked, binary = read_request(body, request.headers.get(HEADER_LENGTH), limits.max_json_bytes)
            outputs = await service.infer(asked)
            answer, json_length = write_response(asked.id, contract.MODEL, contract.VERSION, outputs, binary)
            if json_length is None:
                return Response(answer, media_type="application/json")
            headers = {HEADER_LENGTH: str(json_length)}
            return Response(answer, headers=headers, media_type="application/octet-stream")

    return router
