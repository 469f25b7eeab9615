import json

import pytest

from synfer_ray.storage.answers import MAX_CHARS, AnswerStore


@pytest.fixture(params=["local", "memory"])
def store(request, tmp_path):
    return AnswerStore(tmp_path if request.param == "local" else f"memory://{tmp_path}")


def answers(*keys: str, text: str = "text") -> dict[str, tuple[str, str]]:
    return {key: (f"{text} of {key}", "") for key in keys}


def test_an_empty_or_missing_folder_holds_nothing(store):
    assert store.read(0, 10**9) == {}


def test_a_shard_finds_what_was_asked_for_its_rows(store):
    store.write(0, 7, answers("a", "b"))
    store.write(0, 7, answers("a2"))
    store.write(8, 15, answers("c"))
    store.write(100_000_000, 100_000_007, answers("d"))
    assert store.read(0, 7) == answers("a", "b", "a2")
    assert store.read(7, 8) == answers("a", "b", "a2", "c")
    assert store.read(100_000_003, 100_000_003) == answers("d")
    assert store.read(16, 99) == {}


def test_the_first_to_write_has_the_last_word(store):
    assert store.write(0, 3, answers("a", "b")) == answers("a", "b")
    assert store.write(0, 3, answers("b", "a", text="another text")) == answers("a", "b")
    assert store.read(0, 3) == answers("a", "b")


def test_a_write_that_was_cut_is_replaced(tmp_path):
    store = AnswerStore(tmp_path)
    store.write(0, 3, answers("a", "b"))
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-20])
    assert store.read(0, 3) == answers("a")
    assert store.write(0, 3, answers("a", "b", text="new")) == answers("a", "b", text="new")
    assert store.read(0, 3) == answers("a", "b", text="new")


def test_lines_that_are_no_answers_do_not_count(tmp_path):
    store = AnswerStore(tmp_path)
    store.write(0, 3, answers("a"))
    (file,) = tmp_path.iterdir()
    bad = [
        b"\xff",
        b"[]",
        b'{"key": "x"}',
        b'{"key": "x", "text": 5, "fault": ""}',
        b"[" * 100_000,
        json.dumps({"key": "x", "text": "t" * (MAX_CHARS + 1), "fault": ""}).encode(),
    ]
    file.write_bytes(b"\n".join([*bad, file.read_bytes()]))
    (tmp_path / "notes.txt").write_text("mine")
    assert store.read(0, 3) == answers("a")


def test_texts_of_any_kind_come_back(store):
    texts = {"a": ("line\nbreak, \u2028 and \x85", "unfinished"), "b": ("", "")}
    store.write(0, 1, texts)
    assert store.read(0, 1) == texts
