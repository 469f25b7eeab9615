"""POST /v1/calibrate: image files in, JSON out."""

from collections.abc import AsyncGenerator
from typing import Any

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from synfer_ray.config import LimitsConfig
from synfer_ray.serving.body import read_body
from synfer_ray.serving.refusal import bad_request
from synfer_ray.serving.service import CalibratorService

BODY = {
    "description": "One image file as the body, or several as `multipart/form-data`, there with a field "
    "`label` for all of them or one for each.",
    "required": True,
    "content": {
        "image/*": {"schema": {"type": "string", "format": "binary"}},
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {
                    "file": {"type": "array", "items": {"type": "string", "format": "binary"}},
                    "label": {"type": "string"},
                },
            }
        },
    },
}


class Result(BaseModel):
    """One face: its calibrated label, and how it came about."""

    name: str
    label: str
    probabilities: dict[str, float]
    voters: dict[str, dict[str, float]]
    agreement: float
    decision: str
    reason: str
    attention: str | None = None


class Answer(BaseModel):
    """The faces in the order of the files."""

    results: list[Result]


def calibrate_routes(service: CalibratorService) -> APIRouter:
    """Returns the route."""
    router = APIRouter(tags=["Calibrator"])

    @router.post(
        "/v1/calibrate",
        summary="Judge image files",
        response_model=Answer,
        response_model_exclude_unset=True,
        openapi_extra={"requestBody": BODY},
    )
    async def calibrate(request: Request, label: str = "", attention: bool = False) -> dict[str, Any]:
        """The seven probabilities, the voters', and whether the label stands (`agree`), is replaced
        (`relabel`), or the face rejected. `attention=true` adds where FERAnno looked, as base64 PNG."""
        body = await read_body(request, service.config.limits)
        if request.headers.get("content-type", "").lower().startswith("multipart/"):
            files, labels = await _read_form(request, body, service.config.limits)
        else:
            files, labels = [("image", body)], []
        labels = labels or [label]
        if len(labels) == 1:
            labels = labels * len(files)
        if len(labels) != len(files):
            raise bad_request(f"{len(labels)} labels came for {len(files)} files")
        return {"results": await service.calibrate(files, labels, attention)}

    return router


async def _read_form(
    request: Request, body: bytes, limits: LimitsConfig
) -> tuple[list[tuple[str, bytes]], list[str]]:
    """Returns the files of a form, by name, and its labels."""

    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    count = limits.max_faces
    try:
        form = await MultiPartParser(request.headers, stream(), max_files=count, max_fields=count).parse()
    except (MultiPartException, KeyError, ValueError) as error:
        raise bad_request(f"the form cannot be read: {str(error)[:200]}") from error
    files, labels = [], []
    for field, value in form.multi_items():
        if isinstance(value, UploadFile):
            files.append(((value.filename or field)[:200], await value.read()))
            await value.close()
        elif field == "label":
            labels.append(value)
        else:
            raise bad_request(f"field {field[:100]!r} is neither a file nor label")
    return files, labels
