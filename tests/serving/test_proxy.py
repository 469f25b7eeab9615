import asyncio
import json
import os

import pytest

from synfer_ray.config import LimitsConfig
from synfer_ray.serving.proxy import ProxyGuard, middlewares, proxy_environment

SCOPE = {"type": "http", "path": "/"}
TEXT = [(b"content-type", b"text/plain"), (b"retry-after", b"3"), (b"content-length", b"4")]


def ask(app, chunks=(b"",), limit=100):
    """Runs a request through the guard; returns status, headers and body of the answer."""
    sent = []
    messages = [{"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks]

    async def receive():
        return messages.pop(0) if messages else {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    asyncio.run(ProxyGuard(app, limit)(SCOPE, receive, send))
    start, *rest = sent
    return start["status"], dict(start["headers"]), b"".join(message["body"] for message in rest)


def answering(status, headers, *parts):
    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": status, "headers": headers})
        for number, part in enumerate(parts):
            await send({"type": "http.response.body", "body": part, "more_body": number < len(parts) - 1})

    return app


def test_what_serve_says_in_plain_text_becomes_the_error_body():
    status, headers, body = ask(answering(503, TEXT, b"too ", b"many"))
    assert (status, json.loads(body)) == (503, {"error": "too many"})
    assert headers[b"retry-after"] == b"3" and headers[b"content-length"] == str(len(body)).encode()


@pytest.mark.parametrize(
    ("status", "kind"),
    [(200, b"text/html"), (400, b"application/json"), (404, b"application/json; charset=x")],
)
def test_other_answers_pass_as_they_are(status, kind):
    headers = [(b"Content-Type", kind), (b"x-request-id", b"7")]
    assert ask(answering(status, headers, b"{}", b"")) == (status, dict(headers), b"{}")


def test_a_request_that_nobody_answered_may_be_sent_again():
    async def dies(scope, receive, send):
        await receive()

    status, headers, body = ask(dies)
    assert status == 503 and headers[b"retry-after"] == b"1" and "try again" in json.loads(body)["error"]


def test_a_body_is_cut_off_at_the_limit():
    received = []

    async def reads(scope, receive, send):
        while (message := await receive())["type"] == "http.request":
            received.append(message["body"])

    status, _, body = ask(reads, [bytes(60)] * 10)
    assert status == 413 and "100 bytes" in json.loads(body)["error"]
    assert len(received) == 1


def test_ray_is_told_where_the_guard_is_and_the_proxy_gives_way(monkeypatch):
    lowered = []
    monkeypatch.setattr(os, "nice", lowered.append)
    for name, value in proxy_environment(LimitsConfig(max_body_bytes=77)).items():
        monkeypatch.setenv(name, value)
    (guard,) = middlewares()
    assert guard.cls is ProxyGuard and guard.kwargs == {"max_body_bytes": 77}
    assert lowered == [10]
