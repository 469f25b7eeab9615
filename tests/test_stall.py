import threading
import time

import pytest

from synfer_ray import stall
from synfer_ray.stall import SILENCE_SECONDS, Stalled, until_silent


def slow(items, seconds=0.0):
    for item in items:
        time.sleep(seconds)
        yield item


def test_all_items_pass():
    assert list(until_silent(slow(range(100)))) == list(range(100))


def test_an_error_of_the_reader_is_raised():
    def broken():
        yield 1
        raise OSError("disk")

    passed = until_silent(broken())
    assert next(passed) == 1
    with pytest.raises(OSError, match="disk"):
        next(passed)


def test_silence_after_some_items_is_found(monkeypatch):
    monkeypatch.setenv(SILENCE_SECONDS, "0.3")
    silent = threading.Event()

    def falls_silent():
        yield from range(3)
        silent.wait(10)

    seen = []
    with pytest.raises(Stalled, match="no shard"):
        for item in until_silent(falls_silent()):
            seen.append(item)
    silent.set()
    assert seen == [0, 1, 2]


def test_the_first_item_may_take_its_time_and_sets_the_pace(monkeypatch):
    monkeypatch.setattr(stall, "LEAST_SECONDS", 0.01)
    assert list(until_silent(slow([1, 2], seconds=0.3))) == [1, 2]


def test_a_slow_start_is_not_waited_for_again_and_again(monkeypatch):
    monkeypatch.setattr(stall, "LEAST_SECONDS", 0.1)
    started = time.monotonic()
    with pytest.raises(Stalled):
        list(until_silent(late_and_silent(0.5)))
    assert 1.5 < time.monotonic() - started < 5


def test_who_says_how_long_is_waited_for_no_longer_after_a_slow_start(monkeypatch):
    monkeypatch.setenv(SILENCE_SECONDS, "0.2")
    with pytest.raises(Stalled, match="no shard for 0 seconds"):
        list(until_silent(late_and_silent(2.0)))


def late_and_silent(seconds):
    time.sleep(seconds)
    yield 1
    time.sleep(10)


def test_slow_items_are_no_silence(monkeypatch):
    monkeypatch.setenv(SILENCE_SECONDS, "0.3")
    assert list(until_silent(slow(range(5), seconds=0.1))) == list(range(5))
