"""What Ray Serve does around the calibrator: it bounds bodies, and speaks the protocol's errors.

The proxy takes in a body while the request still waits for a replica, so it must count as well. And what
Serve itself answers (overload, a time limit, a replica that died) would be plain text, or nothing at all.

Ray finds the middleware by environment variables, which must stand when it starts: `synfer serve` sets them.
"""

import json
import os

from starlette.middleware import Middleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from synfer_ray.config import LimitsConfig

MAX_BODY = "SYNFER_MAX_BODY_BYTES"
NICENESS = 10
REPRODUCIBLE = {"MKL_CBWR": "AUTO,STRICT"}
"""What a replica needs in its environment before it loads torch, so that Intel's matrix kernels round alike
in batches of all sizes: a lone face need not wait for a full batch of padding."""


def proxy_environment(limits: LimitsConfig) -> dict[str, str]:
    """Returns the environment variables that Ray's proxies and replicas need.

    The last five are for latency. One thread and one event loop less in each process, which would take turns
    with the thread of the models; no collector of garbage that looks through all the models' objects; logs in
    Ray's files alone; and no low priority, which Ray gives its workers (nice 15) and which suits jobs.
    """
    return {
        "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": f"{__name__}:middlewares",
        MAX_BODY: str(limits.max_body_bytes),
        "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(limits.max_body_bytes),
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",  # 5 kill proxies of a busy machine as they start
        "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
        "RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP": "0",
        "RAY_worker_niceness": "0",
        "RAY_SERVE_FREEZE_GC_ON_STARTUP": "1",
        "RAY_SERVE_LOG_TO_STDERR": "0",
    }


def middlewares() -> list[Middleware]:
    """Called by Ray in the proxy, which gives way to the models where cores are few."""
    os.nice(NICENESS)
    limit = int(os.environ.get(MAX_BODY, LimitsConfig().max_body_bytes))
    return [Middleware(ProxyGuard, max_body_bytes=limit)]


class ProxyGuard:
    """ASGI middleware around Serve's proxy."""

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self.app = app
        self.max_body_bytes = max_body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length, started = 0, False
        error: Message | None = None  # the start of an answer that is no JSON
        text = b""

        async def count() -> Message:
            nonlocal length
            message = await receive()
            length += len(message.get("body", b""))
            return {"type": "http.disconnect"} if length > self.max_body_bytes else message

        async def translate(message: Message) -> None:
            nonlocal started, error, text
            if message["type"] == "http.response.start":
                started = True
                if message["status"] >= 400 and not _is_json(message):
                    error = message
                    return
            if error is None:
                await send(message)
                return
            text += message.get("body", b"")
            if not message.get("more_body", False):
                await _send_error(send, error["status"], text.decode(errors="replace"), _kept(error))

        await self.app(scope, count, translate)
        if started:
            return
        if length > self.max_body_bytes:
            await _send_error(send, 413, f"the body has more than {self.max_body_bytes} bytes")
        else:
            await _send_error(
                send, 503, "the replica that worked on this stopped; try again", [(b"retry-after", b"1")]
            )


def _is_json(message: Message) -> bool:
    return any(
        key.lower() == b"content-type" and value.startswith(b"application/json")
        for key, value in message["headers"]
    )


def _kept(message: Message) -> list[tuple[bytes, bytes]]:
    dropped = (b"content-type", b"content-length")
    return [(key, value) for key, value in message["headers"] if key.lower() not in dropped]


async def _send_error(
    send: Send, status: int, text: str, headers: list[tuple[bytes, bytes]] | None = None
) -> None:
    body = json.dumps({"error": text.strip('"') or f"status {status}"}).encode()
    own = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": [*(headers or []), *own]})
    await send({"type": "http.response.body", "body": body})
