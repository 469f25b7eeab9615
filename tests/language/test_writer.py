from collections.abc import Sequence
from dataclasses import replace

import pytest
from pydantic import SecretStr

from synfer_ray.config import LanguageModelConfig
from synfer_ray.language import endpoint
from synfer_ray.language.questions import Answer
from synfer_ray.language.writer import Request, Writer
from tests.language.chat_server import MODEL, Body, Reply, chat_server, completion, failure, question

SEED = 1000
REQUESTS = [Request(i, f"a happy face, number {i}", "happy", SEED * i) for i in range(6)]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(endpoint, "FIRST_PAUSE", 0.01)


def writer(url: str, output, model: str = "fingerprint", **changes) -> Writer:
    settings = {"kind": "endpoint", "model": MODEL, "url": url, "retries": 0}
    return Writer(LanguageModelConfig(**settings | changes), model, SecretStr(""), output, sees=False)


def happy(body: Body) -> Reply:
    return completion(f"{question(body)}, drawn with {body['seed']}")


def texts(answers: Sequence[Answer]) -> list[str]:
    return [answer.text for answer in answers]


def test_what_was_asked_once_is_not_asked_again(tmp_path):
    with chat_server(happy) as server:
        first = writer(server.url, tmp_path).write(REQUESTS)
        asked = len(server.bodies)
        server.reply = lambda body: completion("a joyful face that says something else")
        again = writer(server.url, tmp_path, concurrency=1, timeout=9.0).write(REQUESTS[::-1])[::-1]
        half = writer(server.url, tmp_path).write(REQUESTS[2:4])
    assert texts(first) == [f"a happy face, number {i}, drawn with {SEED * i}" for i in range(6)]
    assert again == first and half == first[2:4]
    assert asked == len(server.bodies) == 6


def test_without_the_server_what_is_kept_can_still_be_used(tmp_path):
    with chat_server(happy) as server:
        first = writer(server.url, tmp_path).write(REQUESTS)
    assert writer(server.url, tmp_path).write(REQUESTS) == first
    with pytest.raises(ConnectionError):
        writer(server.url, tmp_path).write([*REQUESTS, Request(6, "new", "happy", 1)])


@pytest.mark.parametrize("change", ["model", "temperature", "instruction", "seed", "image"])
def test_another_question_is_asked_also_in_a_shared_folder(tmp_path, change):
    shared = {"answers": str(tmp_path / "shared")}
    changed = {
        "instruction": {"instruction": "a happy face, quite another"},
        "seed": {"seed": 7},
        "image": {"image": b"picture"},
    }.get(change, {})
    settings = {"model": {"model": "another"}, "temperature": {"temperature": 0.1}}.get(change, {})
    with chat_server(lambda body: completion("a happy face of a person")) as server:
        writer(server.url, tmp_path / "one", **shared).write(REQUESTS[:1])
        writer(server.url, tmp_path / "two", **shared).write(REQUESTS[:1])
        assert len(server.bodies) == 1
        writer(server.url, tmp_path / "two", **shared | settings).write([replace(REQUESTS[0], **changed)])
    assert len(server.bodies) == 2


def test_a_bad_answer_is_asked_for_again_with_another_seed(tmp_path):
    def moody(body: Body) -> Reply:
        return completion("I'm sorry, I cannot say.") if body["seed"] % SEED == 0 else happy(body)

    with chat_server(moody) as server:
        found = writer(server.url, tmp_path).write(REQUESTS)
        assert texts(found) == [f"a happy face, number {i}, drawn with {SEED * i + 1}" for i in range(6)]
        assert writer(server.url, tmp_path).write(REQUESTS) == found
        assert len(server.bodies) == 12
        once = writer(server.url, tmp_path, attempts=1).write(REQUESTS)
    assert {(answer.text, answer.fault, answer.detail) for answer in once} == {("", "refusal", "I'm sorry")}


def test_faults_are_told_and_the_attempts_bounded(tmp_path):
    replies = {
        0: completion("a sad face with raised brows"),
        1: completion("a happy"),
        2: completion("a happy face, number 2, and on and", "length"),
        3: failure(500),
        4: failure(400),
    }

    def reply(body: Body) -> Reply:
        return replies.get(body["seed"] // SEED, happy(body))

    with chat_server(reply) as server:
        found = writer(server.url, tmp_path, attempts=3).write(REQUESTS)
        faults = ["other_expression", "too_short", "unfinished", "no_answer", "refused_request", ""]
        assert [answer.fault for answer in found] == faults
        assert [bool(answer.text) for answer in found] == [False] * 5 + [True]
        assert len(server.bodies) == 3 * 3 + 3
        replies.clear()
        later = writer(server.url, tmp_path, attempts=3).write(REQUESTS)
    assert [answer.fault for answer in later] == [*faults[:3], "", "", ""]  # silence is not kept


def test_without_temperature_a_second_attempt_would_be_the_same(tmp_path):
    with chat_server(lambda body: completion("no")) as server:
        (answer,) = writer(server.url, tmp_path, temperature=0.0, attempts=5).write(REQUESTS[:1])
    assert answer.fault == "too_short"
    assert len(server.bodies) == 1
