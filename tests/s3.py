"""A real S3 server on this machine, behind a proxy that makes its requests fail."""

import http.client
import io
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import s3fs
from moto.s3.models import s3_backends
from moto.server import ThreadedMotoServer

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}
ERRORS = {"500": "InternalError", "503": "SlowDown", "403": "AccessDenied"}
Fault = Callable[[str, str], str | None]
"""(method, path and query) -> a status of ERRORS, reset, late (done but never answered), timeout or None."""


@dataclass
class Proxy:
    """Passes requests on to `target`; what `fault` names goes wrong instead."""

    target: tuple[str, int]
    fault: Fault = lambda method, path: None
    requests: list[tuple[str, str, str | None]] = field(default_factory=list)
    slow: float = 3.0
    """Seconds without an answer, of a timeout."""

    @contextmanager
    def serve(self) -> Iterator[str]:
        """Runs the proxy; yields its URL."""
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self) -> None:
                proxy.handle(self)

            do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any

            def log_message(self, *_: object) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()

    def handle(self, client: BaseHTTPRequestHandler) -> None:
        """Answers one request, or does not."""
        kind = self.fault(client.command, client.path)
        self.requests.append((client.command, client.path, kind))
        if kind == "reset":
            return reset(client)
        length = int(client.headers.get("Content-Length") or 0)
        body = client.rfile.read(length) if length else None
        if kind in ERRORS:
            text = f"<Error><Code>{ERRORS[kind]}</Code><Message>{ERRORS[kind]}</Message></Error>".encode()
            return answer(client, int(kind), {}, b"" if client.command == "HEAD" else text)
        if kind == "timeout":
            time.sleep(self.slow)
            return reset(client)
        connection = http.client.HTTPConnection(*self.target, timeout=60)
        connection.request(client.command, client.path, body, dict(client.headers))
        response = connection.getresponse()
        content = response.read()
        if kind == "late":
            return reset(client)
        answer(client, response.status, dict(response.getheaders()), content)


def answer(client: BaseHTTPRequestHandler, status: int, headers: dict[str, str], content: bytes) -> None:
    """Sends a whole response."""
    client.send_response_only(status)
    length = headers.get("Content-Length") or headers.get("content-length") or str(len(content))
    for name, value in headers.items():
        if name.lower() not in ("content-length", "transfer-encoding", "connection"):
            client.send_header(name, value)
    client.send_header("Content-Length", length if client.command == "HEAD" else str(len(content)))
    client.end_headers()
    client.wfile.write(content)


def reset(client: BaseHTTPRequestHandler) -> None:
    """Ends the connection in the rudest way."""
    client.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.connection.close()
    client.close_connection = True
    client.wfile = io.BytesIO()  # what the handler flushes at its end


@contextmanager
def s3_server() -> Iterator[Proxy]:
    """Runs the server and its proxy, which the environment points to, with an empty bucket `bucket`."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    s3_backends.reset()  # what an earlier server of this process held
    before = dict(os.environ)
    try:
        proxy = Proxy(server.get_host_and_port())
        with proxy.serve() as url:
            os.environ.update(CREDENTIALS | {"AWS_ENDPOINT_URL": url})
            s3fs.S3FileSystem.clear_instance_cache()
            s3fs.S3FileSystem().mkdir("bucket")
            yield proxy
    finally:
        os.environ.clear()
        os.environ.update(before)
        s3fs.S3FileSystem.clear_instance_cache()
        server.stop()


def sometimes(share: float, kinds: list[str], seed: int = 0) -> Fault:
    """Returns a fault that strikes this share of the requests."""
    rng = random.Random(seed)
    return lambda method, path: rng.choice(kinds) if rng.random() < share else None
