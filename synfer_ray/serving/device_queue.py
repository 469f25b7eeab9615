"""Dynamic batching: faces of all requests share the batches of one device.

`serve.batch` closes a batch when its waiting time is over, even while the device is busy, and the small
batches queue up, each of which costs more a face. Here the device closes it, in a thread of its own, so that
it need not wait for a busy event loop between two batches.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Waiting(Generic[Item, Answer]):
    """An item, its answer to come, and the moment (`time.monotonic`) until which it waits for others."""

    item: Item
    answer: asyncio.Future[Answer]
    until: float


class DeviceQueue(Generic[Item, Answer]):
    """Items wait for the device; whatever waits, up to `size`, is its next batch.

    Args:
        ask: answers a batch; runs in the one device thread.
        wait_s: how long an item that finds the device idle waits for others.
    """

    def __init__(self, ask: Callable[[Sequence[Item]], Sequence[Answer]], size: int, wait_s: float) -> None:
        self.ask = ask
        self.size = size
        self.wait_s = wait_s
        self.waiting: SimpleQueue[Waiting[Item, Answer]] = SimpleQueue()
        Thread(target=self._work, name="device", daemon=True).start()

    async def __call__(self, item: Item) -> Answer:
        """Returns the answer to one item; raises what `ask` raised for its batch."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.waiting.put(Waiting(item, answer, time.monotonic() + self.wait_s))
        return await answer

    def _work(self) -> None:
        while True:
            batch = [waiting for waiting in self._next_batch() if not waiting.answer.done()]
            if not batch:
                continue
            results: Sequence[Answer] = ()
            failure = None
            try:
                results = self.ask([waiting.item for waiting in batch])
            except Exception as error:
                failure = error
            with suppress(RuntimeError):  # the loop is closed, and nobody waits
                batch[0].answer.get_loop().call_soon_threadsafe(settle, batch, results, failure)

    def _next_batch(self) -> list[Waiting[Item, Answer]]:
        batch = [self.waiting.get()]
        with suppress(Empty):
            while len(batch) < self.size:
                batch.append(self.waiting.get(timeout=max(0.0, batch[0].until - time.monotonic())))
        return batch


def settle(
    batch: Sequence[Waiting[Item, Answer]], results: Sequence[Answer], failure: Exception | None
) -> None:
    """Hands a batch its answers, or its failure, leaving out those whose callers have gone."""
    for place, waiting in enumerate(batch):
        if waiting.answer.done():
            continue
        if failure:
            waiting.answer.set_exception(failure)
        else:
            waiting.answer.set_result(results[place])
