"""Reads the body of an HTTP request, up to a size and within a time."""

import asyncio

from fastapi import Request
from starlette.requests import ClientDisconnect

from synfer_ray.config import LimitsConfig
from synfer_ray.serving.refusal import Refusal, bad_request


async def read_body(request: Request, limits: LimitsConfig) -> bytes:
    """Returns the body; stops reading where it becomes too long.

    Raises:
        Refusal: it is too long, compressed, incomplete, or comes too slowly.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding != "identity":
        raise Refusal(415, f"Content-Encoding {encoding[:40]!r} is not read; send the body as it is")
    declared = request.headers.get("content-length", "0")
    if not (declared.isascii() and declared.isdigit()):
        raise bad_request("Content-Length is not a number")
    too_long = Refusal(413, f"the body has more than {limits.max_body_bytes} bytes")
    if len(declared) > 18 or int(declared) > limits.max_body_bytes:
        raise too_long
    chunks, length = [], 0
    try:
        async with asyncio.timeout(limits.body_timeout_s):
            async for chunk in request.stream():
                length += len(chunk)
                if length > limits.max_body_bytes:
                    raise too_long
                chunks.append(chunk)
    except TimeoutError as error:
        raise Refusal(408, f"the body took longer than {limits.body_timeout_s} seconds to come") from error
    except ClientDisconnect as error:
        raise bad_request("the body is incomplete") from error
    return b"".join(chunks)
