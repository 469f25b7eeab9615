"""Dynamic batching: faces of all requests share the batches of one device.

`serve.batch` closes a batch when its waiting time is over, even while the device is busy, and the small
batches queue up. A padded batch costs the same however full it is; here the device closes it.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Answer = TypeVar("Answer")


class DeviceQueue(Generic[Item, Answer]):
    """Items wait for the device; whatever waits, up to `size`, is its next batch.

    Args:
        ask: answers a batch; runs in the one device thread.
        wait_s: how long an idle device waits for more than one item.
    """

    def __init__(self, ask: Callable[[Sequence[Item]], Sequence[Answer]], size: int, wait_s: float) -> None:
        self.ask = ask
        self.size = size
        self.wait_s = wait_s
        self.thread = ThreadPoolExecutor(1, "device")
        self.waiting: asyncio.Queue[tuple[Item, asyncio.Future[Answer]]] = asyncio.Queue()
        self.worker: asyncio.Task[None] | None = None

    async def __call__(self, item: Item) -> Answer:
        """Returns the answer to one item; raises what `ask` raised for its batch."""
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self.waiting.put_nowait((item, answer))
        if self.worker is None or self.worker.done():
            self.worker = asyncio.create_task(self._work())
        return await answer

    async def _work(self) -> None:
        while True:
            batch = await self._next_batch()
            if not batch:
                continue
            items, answers = zip(*batch)
            try:
                results = await asyncio.get_running_loop().run_in_executor(self.thread, self.ask, items)
            except Exception as error:
                for answer in answers:
                    if not answer.done():
                        answer.set_exception(error)
                continue
            for answer, result in zip(answers, results):
                if not answer.done():
                    answer.set_result(result)

    async def _next_batch(self) -> list[tuple[Item, asyncio.Future[Answer]]]:
        """Waits for an item; leaves out those whose callers have gone."""
        batch = [await self.waiting.get()]
        if self.waiting.qsize() + 1 < self.size:
            await asyncio.sleep(self.wait_s)
        while len(batch) < self.size and not self.waiting.empty():
            batch.append(self.waiting.get_nowait())
        return [(item, answer) for item, answer in batch if not answer.done()]
