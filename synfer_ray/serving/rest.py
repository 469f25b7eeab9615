"""The REST entrance: the Open Inference Protocol under /v2, /v1/calibrate and a page for people."""

import time
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from synfer_ray.serving.contract import server_metadata
from synfer_ray.serving.page import HEADERS, PAGE
from synfer_ray.serving.refusal import Refusal
from synfer_ray.serving.rest_calibrate import calibrate_routes
from synfer_ray.serving.rest_oip import oip_routes
from synfer_ray.serving.service import CalibratorService

OPEN_PATHS = ("/", "/docs", "/openapi.json", "/v2/health/live", "/v2/health/ready")
"""What callers without the token may read: nothing of it says or costs anything."""


def rest_app(service: CalibratorService) -> FastAPI:
    """Builds the application around a service. Every error is a JSON object with the key `error`."""
    app = FastAPI(
        title="synfer-ray: facial-expression label calibrator",
        version=server_metadata()["version"],
        redoc_url=None,
        exception_handlers={
            Refusal: _refuse,
            RequestValidationError: _refuse,
            HTTPException: _refuse,
            Exception: _crash,
        },
    )
    app.include_router(oip_routes(service))
    app.include_router(calibrate_routes(service))

    @app.get("/", include_in_schema=False)
    async def page() -> Response:
        return HTMLResponse(PAGE, headers=HEADERS)

    app.add_middleware(Gate, service=service)
    return app


class Gate:
    """ASGI middleware: lets in who may ask, and counts what is answered."""

    def __init__(self, app: ASGIApp, service: CalibratorService) -> None:
        self.app = app
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.monotonic(), 500

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            if scope["path"] not in OPEN_PATHS:
                self.service.access.check_token(Request(scope).headers.get("authorization", ""))
            await self.app(scope, receive, watch)
        except Refusal as refusal:
            await error_response(refusal)(scope, receive, watch)
        finally:
            self.service.metrics.request("http", status, time.monotonic() - started)


def error_response(refusal: Refusal) -> Response:
    """Returns the protocol's error body."""
    headers = {}
    if refusal.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if refusal.status == HTTPStatus.SERVICE_UNAVAILABLE:
        headers["Retry-After"] = "1"
    return JSONResponse({"error": refusal.message}, refusal.status, headers)


async def _crash(request: Request, error: Any) -> Response:
    return error_response(Refusal(500, "the server failed; its log knows more"))


async def _refuse(request: Request, error: Any) -> Response:
    if isinstance(error, HTTPException):
        error = Refusal(error.status_code, str(error.detail))
    elif isinstance(error, RequestValidationError):
        problem = error.errors()[0]
        error = Refusal(400, f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']}")
    return error_response(error)
