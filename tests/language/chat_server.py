"""An OpenAI-compatible endpoint of its own, written against the protocol's text with the standard library.

It writes a usable text for the facts it is given, and misbehaves on demand.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from synfer_ray.prompts.wording import WORDINGS
from synfer_ray.taxonomy.compounds import COMPOUND_EXPRESSIONS

Body = dict[str, Any]
Reply = tuple[int, dict[str, str], bytes]
"""Status, headers and body."""

MODEL, KEY = "tiny-chat", "sk-test-4f1c0a77"


def completion(text: str | None, finish: str = "stop", **message: Any) -> Reply:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text, **message},
        "finish_reason": finish,
    }
    answer = {"id": "chatcmpl-1", "object": "chat.completion", "model": MODEL, "choices": [choice]}
    return 200, {}, json.dumps(answer).encode()


def failure(status: int, message: str = "no", **headers: str) -> Reply:
    return status, headers, json.dumps({"error": {"message": message}}).encode()


def question(body: Body) -> str:
    content = body["messages"][0]["content"]
    return content if isinstance(content, str) else content[1]["text"]


def facts(body: Body) -> str:
    """The last line of facts: those before are examples."""
    return re.findall(r"Facts: (.*)", question(body))[-1]


def well_behaved(body: Body) -> Reply:
    """Names the expression, and the seed so that no two texts are alike."""
    parts = re.match(r"expression ([a-z]+(?: and [a-z]+)?)", facts(body))[1].split(" and ")
    names = {frozenset(compound.components): name for name, compound in COMPOUND_EXPRESSIONS.items()}
    name = parts[0] if len(parts) == 1 else names[frozenset(parts)]
    look = "" if name == "unknown" else WORDINGS[name].adjectives[0]
    return completion(f'"a {look} person in a portrait, number {body["seed"]}"')


class ChatServer(ThreadingHTTPServer):
    """Answers as `reply` says; remembers requests, headers, and how many were under way at once."""

    daemon_threads = True

    def __init__(self, reply: Callable[[Body], Reply] = well_behaved) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.reply = reply
        self.bodies: list[Body] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.lock = threading.Lock()
        self.under_way = self.most_under_way = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that does not wait for the answer is part of the test."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ChatServer

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with server.lock:
            server.bodies.append(body)
            server.headers.append({key.lower(): value for key, value in self.headers.items()})
            server.paths.append(self.path)
            server.under_way += 1
            server.most_under_way = max(server.most_under_way, server.under_way)
        try:
            status, headers, content = server.reply(body)
        finally:
            with server.lock:
                server.under_way -= 1
        length = headers.pop("content-length", str(len(content)))
        self.send_response(status)
        for name, value in (headers | {"content-length": length, "connection": "close"}).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        """Stays quiet."""


@contextmanager
def chat_server(reply: Callable[[Body], Reply] = well_behaved) -> Iterator[ChatServer]:
    server = ChatServer(reply)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def slowly(seconds: float, reply: Callable[[Body], Reply] = well_behaved) -> Callable[[Body], Reply]:
    def late(body: Body) -> Reply:
        time.sleep(seconds)
        return reply(body)

    return late
