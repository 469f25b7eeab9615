import base64
import socket
from collections.abc import Callable

import pytest
from pydantic import SecretStr

from synfer_ray.config import LanguageModelConfig
from synfer_ray.errors import InputError
from synfer_ray.language import endpoint
from synfer_ray.language.endpoint import MAX_BYTES, Endpoint
from synfer_ray.language.questions import Answer, Question
from tests.faces.pictures import png
from tests.language.chat_server import (
    KEY,
    MODEL,
    Body,
    Reply,
    chat_server,
    completion,
    failure,
    question,
    slowly,
)


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(endpoint, "FIRST_PAUSE", 0.01)


def config(url: str, **changes) -> LanguageModelConfig:
    settings = {"kind": "endpoint", "model": MODEL, "timeout": 5.0, "retries": 2}
    return LanguageModelConfig(url=url, **settings | changes)


def ask(url: str, questions: list[Question], key: str = "", **changes) -> list[Answer]:
    return Endpoint(config(url, **changes), SecretStr(key)).ask(questions)


def echo(body: Body) -> Reply:
    return completion(f"{question(body)} {body['seed']}")


def first(*failures: Reply | Callable[[Body], Reply]) -> Callable[[Body], Reply]:
    """Fails with these, one after the other, and then answers."""
    left = list(failures)

    def reply(body: Body) -> Reply:
        step = left.pop(0) if left else echo
        return step(body) if callable(step) else step

    return reply


QUESTIONS = [Question(f"question {i}", seed=i) for i in range(6)]


def test_it_speaks_the_protocol_and_keeps_the_order():
    picture = png(1)
    with chat_server(echo) as server:
        answers = ask(server.url, [*QUESTIONS, Question("see", 9, picture)], KEY, temperature=0.3, top_p=0.5)
    assert [answer.text for answer in answers] == [*(f"question {i} {i}" for i in range(6)), "see 9"]
    assert {(path, headers["authorization"]) for path, headers in zip(server.paths, server.headers)} == {
        ("/v1/chat/completions", f"Bearer {KEY}")
    }
    seen = next(body for body in server.bodies if body["seed"] == 9)
    image, text = seen.pop("messages")[0]["content"]
    assert seen == {"model": MODEL, "max_tokens": 160, "temperature": 0.3, "top_p": 0.5, "seed": 9}
    kind, data = image["image_url"]["url"].split(",")
    assert (kind, base64.b64decode(data)) == ("data:image/png;base64", picture)
    assert text == {"type": "text", "text": "see"}


def test_several_requests_are_under_way_but_never_more_than_asked_for():
    with chat_server(slowly(0.1, echo)) as server:
        ask(server.url, QUESTIONS * 3, concurrency=3)
    assert server.most_under_way == 3


def hang_up(body: Body) -> Reply:
    raise ConnectionError


CUT = (200, {"content-length": "500"}, b'{"choices"')
FAILURES = {
    "429": failure(429, retry_after="0"),
    "500": failure(500),
    "503 as a page": (503, {}, b"<html>busy</html>"),
    "garbage": (200, {}, b"\xff\xfe not json"),
    "no choices": (200, {}, b'{"choices": []}'),
    "a number": completion(5),
    "a list": (200, {}, b"[" * 5000),
    "cut": CUT,
    "too large": (200, {}, b" " * (MAX_BYTES + 1)),
    "silence": slowly(1.5, echo),
    "hangs up": hang_up,
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_is_tried_again(name):
    with chat_server(first(FAILURES[name], FAILURES[name])) as server:
        (answer,) = ask(server.url, QUESTIONS[:1], timeout=0.3)
    assert answer == Answer("question 0 0")
    assert len(server.bodies) == 3


@pytest.mark.parametrize("name", FAILURES)
def test_the_tries_are_bounded_and_neighbours_do_not_suffer(name):
    def reply(body: Body) -> Reply:
        step = FAILURES[name] if body["seed"] == 1 else echo
        return step(body) if callable(step) else step

    with chat_server(reply) as server:
        answers = ask(server.url, QUESTIONS[:3], retries=1, timeout=0.3)
    assert [answer.fault for answer in answers] == ["", "no_answer", ""]
    assert answers[1].detail
    assert sum(body["seed"] == 1 for body in server.bodies) == 2


def test_the_server_decides_how_long_to_wait(monkeypatch):
    pauses = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr(endpoint.asyncio, "sleep", sleep)
    with chat_server(first(failure(429, retry_after="7"), failure(503, retry_after="999"))) as server:
        assert ask(server.url, QUESTIONS[:1])[0].text == "question 0 0"
    assert pauses == [7.0, endpoint.LONGEST_PAUSE]


def test_a_question_that_is_not_taken_is_not_asked_again():
    with chat_server(lambda body: failure(400, "too long") if body["seed"] == 2 else echo(body)) as server:
        answers = ask(server.url, QUESTIONS)
    assert [answer.fault for answer in answers] == ["", "", "refused_request", "", "", ""]
    assert "HTTP 400" in answers[2].detail and "too long" in answers[2].detail
    assert len(server.bodies) == len(QUESTIONS)


def test_an_answer_at_the_limit_is_unfinished_and_a_refusal_is_a_text():
    replies = [completion("a happy", "length"), completion(None, refusal="I'm sorry, no.")]
    with chat_server(lambda body: replies[body["seed"]]) as server:
        answers = ask(server.url, QUESTIONS[:2])
    assert answers == [Answer("a happy", "unfinished"), Answer("I'm sorry, no.")]


@pytest.mark.parametrize("status", [401, 403, 404, 307])
def test_what_no_retry_can_help_ends_the_run_in_words_without_the_key(status):
    with chat_server(echo) as elsewhere:
        reply = failure(status, f"the key {KEY} is wrong", location=elsewhere.url + "/chat/completions")
        with chat_server(lambda body: reply) as server, pytest.raises(InputError) as error:
            ask(server.url, QUESTIONS[:1], KEY)
        assert not elsewhere.bodies  # a redirect would carry image and key to another server
    assert f"HTTP {status}" in str(error.value) and MODEL in str(error.value)
    assert KEY not in str(error.value)
    assert len(server.bodies) == 1


def test_a_key_is_masked_before_a_long_message_is_cut():
    shown = Endpoint(config("http://127.0.0.1:9"), SecretStr(KEY))._readable(f"{'x' * 195} {KEY}".encode())
    assert shown == "x" * 195 + " ***"


def test_nobody_there_is_not_the_fault_of_a_row():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ConnectionError, match=f"127.0.0.1:{port}.* is out of reach"):
        ask(f"http://127.0.0.1:{port}/v1", QUESTIONS[:1], retries=1)


@pytest.mark.parametrize(("status", "error"), [(500, ConnectionError), (400, InputError)])
def test_a_server_that_fails_for_everybody_ends_the_run(status, error):
    with chat_server(lambda body: failure(status, "broken")) as server:
        with pytest.raises(error, match=f"HTTP {status}.*broken"):
            ask(server.url, QUESTIONS)
        (alone,) = ask(server.url, QUESTIONS[:1])
    assert alone.fault  # one row proves nothing about the server


def test_a_server_that_is_down_is_given_up_before_every_row_has_waited():
    with (
        chat_server(lambda body: failure(503)) as server,
        pytest.raises(ConnectionError, match="for 4 questions in a row"),
    ):
        ask(server.url, QUESTIONS * 10, concurrency=3, retries=0)
    assert len(server.bodies) < 20


def test_bad_rows_in_a_row_are_not_a_server_that_is_down():
    with chat_server(lambda body: failure(500) if body["seed"] % 3 == 1 else echo(body)) as server:
        answers = ask(server.url, QUESTIONS * 5, concurrency=3, retries=0)
    assert sum(answer.fault == "no_answer" for answer in answers) == 10
