"""A run that falls silent: found, so that it can be started again with what is missing.

Ray may lose the report of a finished task and then waits for it for ever (ray-project/ray 43914, 62537). In
our simulation of a million rows one came five minutes late, on two cores with a load of 35.
"""

import threading
from collections.abc import Iterable, Iterator
from queue import Empty, Queue
from time import monotonic
from typing import Any, TypeVar

Item = TypeVar("Item")

SILENCE, TIMES = 600.0, 10.0
"""Silence is too long after so many seconds, but not before so many times the longest silence so far."""


class Stalled(Exception):
    """No item came for too long."""


def until_silent(items: Iterable[Item], silence: float = SILENCE) -> Iterator[Item]:
    """Yields the items, which another thread reads.

    The first may take its time: nothing tells how long a shard takes here, or the start of a node.

    Raises:
        Stalled: none came for too long. The thread goes on waiting: end what it waits for.
    """
    arrived: Queue[Any] = Queue()
    end = object()

    def read() -> None:
        try:
            for item in items:
                arrived.put(item)
            arrived.put(end)
        except BaseException as error:
            arrived.put(error)

    threading.Thread(target=read, name="shards", daemon=True).start()
    longest, last = 0.0, monotonic()
    patience: float | None = None
    while True:
        try:
            item = arrived.get(timeout=patience)
        except Empty:
            raise Stalled(f"no shard for {monotonic() - last:.0f} seconds") from None
        if item is end:
            return
        if isinstance(item, BaseException):
            raise item
        now = monotonic()
        longest = max(longest, now - last)
        last, patience = now, max(silence, TIMES * longest)
        yield item
