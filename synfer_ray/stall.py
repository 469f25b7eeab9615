"""A run that falls silent: found, so that it can be started again with what is missing.

Ray may lose the report of a finished task and then waits for it for ever (ray-project/ray 43914, 62537). In
our simulation of a million rows one came five minutes late, on two cores with a load of 35.
"""

import os
import threading
from collections.abc import Iterable, Iterator
from queue import Empty, Queue
from time import monotonic
from typing import Any, TypeVar

from synfer_ray.errors import RunFailed

Item = TypeVar("Item")

SILENCE_SECONDS = "SYNFER_SILENCE_SECONDS"
"""The environment variable with the seconds without an item that are too long, whatever the pace so far."""
LEAST_SECONDS = 600.0
TIMES = 3.0
"""Where that says nothing, silence is too long after `LEAST_SECONDS`, but not before so many times the
longest wait so far."""


class Stalled(RunFailed):
    """No item came for too long."""


def until_silent(items: Iterable[Item]) -> Iterator[Item]:
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
    told = float(os.environ.get(SILENCE_SECONDS) or 0)
    longest = 0.0
    patience: float | None = None
    last = monotonic()
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
        longest, last = max(longest, now - last), now
        patience = told or max(LEAST_SECONDS, TIMES * longest)
        yield item
