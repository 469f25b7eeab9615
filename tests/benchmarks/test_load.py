import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from synfer_ray.benchmarks.load import Load, put_load
from synfer_ray.errors import InputError


class Handler(BaseHTTPRequestHandler):
    """Answers by what the body says: a status, and seconds to wait; `count` makes each answer another."""

    protocol_version = "HTTP/1.1"
    wbufsize = -1
    count = 0

    def do_POST(self) -> None:
        wish = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        time.sleep(wish.get("seconds", 0))
        Handler.count += 1
        answer = str(Handler.count if wish.get("count") else 0).encode()
        self.send_response(wish.get("status", 200))
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *arguments) -> None:
        pass


@pytest.fixture(scope="module")
def url():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()


def load(url: str, *wishes: dict, **settings) -> Load:
    return Load(url, [json.dumps(wish).encode() for wish in wishes], {}, **settings)


def test_requests_at_a_rate_wait_for_nobody(url):
    outcome = put_load(load(url, {"seconds": 0.3}, seconds=0.5, rate=40))
    assert len(outcome.latencies) == 20  # callers in turn would have had two answers
    assert min(outcome.latencies) >= 0.3 and outcome.p99() >= 0.3
    assert outcome.seconds >= 0.5 and outcome.rate == 20 / outcome.seconds


def test_callers_wait_for_their_answers(url):
    outcome = put_load(load(url, {"seconds": 0.1}, seconds=0.5, callers=2))
    assert 2 <= len(outcome.latencies) <= 12


def test_answers_are_told_apart(url):
    outcome = put_load(load(url, {}, {"status": 503}, {"status": 429}, {"status": 500}, seconds=0.2, rate=40))
    assert (len(outcome.latencies), outcome.refused, outcome.failed, outcome.changed) == (2, 4, 2, 0)


def test_another_answer_to_the_same_request_is_seen(url):
    assert put_load(load(url, {"count": True}, seconds=0.1, rate=50)).changed == 4


def test_nobody_there_is_a_failure():
    assert put_load(load("http://127.0.0.1:9/", {}, seconds=0.1, rate=50)).failed == 5


@pytest.mark.parametrize("host", ["example.org", "10.0.0.1"])
def test_load_stays_on_this_machine(host):
    with pytest.raises(InputError, match="another"):
        put_load(load(f"http://{host}/", {}, seconds=1))


def test_load_is_bounded(url):
    with pytest.raises(InputError, match="more than 20000"):
        put_load(load(url, {}, seconds=300, rate=1000))
