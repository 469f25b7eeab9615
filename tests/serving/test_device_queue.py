import asyncio
import threading

import pytest

from synfer_ray.serving.device_queue import DeviceQueue


class Device:
    """Answers with the item and remembers its batches; waits for `free` before each."""

    def __init__(self):
        self.batches = []
        self.threads = set()
        self.free = threading.Event()
        self.free.set()

    def __call__(self, items):
        self.free.wait(10)
        self.batches.append(list(items))
        self.threads.add(threading.current_thread().name)
        if "bad" in items:
            raise RuntimeError("broken")
        return [f"answer to {item}" for item in items]


@pytest.fixture
def device():
    return Device()


def test_every_item_gets_its_own_answer_in_batches_of_one_thread(device):
    async def ask():
        queue = DeviceQueue(device, 4, 0.5)
        return await asyncio.gather(*(queue(number) for number in range(10)))

    assert asyncio.run(ask()) == [f"answer to {number}" for number in range(10)]
    assert [len(batch) for batch in device.batches] == [4, 4, 2]
    assert len(device.threads) == 1


def test_what_comes_while_the_device_is_busy_shares_the_next_batch(device):
    async def ask():
        device.free.clear()
        queue = DeviceQueue(device, 4, 0.0)
        tasks = []
        for number in range(4):  # one after the other, with no window for them to share
            tasks.append(asyncio.create_task(queue(number)))
            await asyncio.sleep(0.05)
        device.free.set()
        await asyncio.gather(*tasks)

    asyncio.run(ask())
    assert device.batches == [[0], [1, 2, 3]]


def test_an_idle_device_waits_for_a_second_item(device):
    async def ask():
        queue = DeviceQueue(device, 4, 0.5)
        first = asyncio.create_task(queue("a"))
        await asyncio.sleep(0.05)
        await asyncio.gather(first, queue("b"))

    asyncio.run(ask())
    assert device.batches == [["a", "b"]]


def test_callers_that_have_gone_take_no_place(device):
    async def ask():
        device.free.clear()
        queue = DeviceQueue(device, 2, 0.0)
        running = asyncio.create_task(queue("running"))
        await asyncio.sleep(0.05)
        gone = asyncio.create_task(queue("gone"))
        await asyncio.sleep(0)
        gone.cancel()
        waiting = asyncio.create_task(queue("waiting"))
        await asyncio.sleep(0.05)
        device.free.set()
        return await asyncio.gather(running, waiting)

    assert asyncio.run(ask()) == ["answer to running", "answer to waiting"]
    assert device.batches == [["running"], ["waiting"]]


def test_a_failure_reaches_its_batch_and_no_other(device):
    async def ask():
        queue = DeviceQueue(device, 2, 0.5)
        return await asyncio.gather(*map(queue, ["a", "bad", "c"]), return_exceptions=True)

    first, second, third = asyncio.run(ask())
    assert isinstance(first, RuntimeError) and first is second
    assert third == "answer to c"
