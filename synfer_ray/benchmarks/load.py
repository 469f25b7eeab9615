"""Load on a service of this machine: callers that wait for their answers, or requests at a steady rate.

Requests at a rate leave at even distances and wait for nobody, so that a slow service meets a queue as it
would in the world, and not a polite caller.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle, islice
from urllib.parse import urlsplit

import numpy as np

from synfer_ray.benchmarks.cost import Summed
from synfer_ray.errors import InputError
from synfer_ray.serving.access import is_loopback

MAX_REQUESTS = 20_000
MAX_WAITING = 2_000
"""Bounds of one load: requests in all, and requests without an answer at one time."""
SPARE_SECONDS = 30.0
"""How long answers are awaited after the last request."""


@dataclass
class Outcome(Summed):
    """What became of the requests.

    Attributes:
        latencies: seconds from when a request was due to its answer, of the answered ones.
        refused: answered by 429 or 503.
        failed: answered by another status, or not at all.
        changed: answered otherwise than the same request before.
        seconds: from the first request to the last answer.
        service_cpu: CPU seconds of the service meanwhile, if they were measured.
    """

    latencies: list[float] = field(default_factory=list)
    refused: int = 0
    failed: int = 0
    changed: int = 0
    seconds: float = 0.0
    service_cpu: float = 0.0

    @property
    def rate(self) -> float:
        """Answers a second."""
        return len(self.latencies) / self.seconds

    def p99(self) -> float:
        """Returns the 99th percentile of the latencies in seconds."""
        return float(np.percentile(self.latencies, 99))


@dataclass(frozen=True)
class Load:
    """A load of POST requests with the given bodies in turn.

    Attributes:
        url: on a loopback address.
        rate: requests a second; 0 for `callers` that each send the next request after the answer.
        seconds: how long requests are sent.
    """

    url: str
    bodies: Sequence[bytes]
    headers: dict[str, str]
    seconds: float
    rate: float = 0.0
    callers: int = 1


def put_load(load: Load) -> Outcome:
    """Puts the load on the service and waits for the answers.

    Raises:
        InputError: the service is on another machine, or the load is larger than `MAX_REQUESTS`.
    """
    host = urlsplit(load.url).hostname or ""
    if not is_loopback(host):
        raise InputError(f"load is put on this machine only, and {host!r} is another")
    if load.rate * load.seconds > MAX_REQUESTS:
        raise InputError(f"{load.rate:.0f} requests/s for {load.seconds} s are more than {MAX_REQUESTS}")
    return asyncio.run(_Generator(load).run())


class _Generator:
    def __init__(self, load: Load) -> None:
        self.load = load
        self.outcome = Outcome()
        self.answers: dict[bytes, bytes] = {}

    async def run(self) -> Outcome:
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=SPARE_SECONDS)
        connector = aiohttp.TCPConnector(limit=MAX_WAITING)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as self.session:
            started = time.perf_counter()
            await (self._at_rate(started) if self.load.rate else self._by_callers(started))
            self.outcome.seconds = time.perf_counter() - started
        return self.outcome

    async def _at_rate(self, started: float) -> None:
        waiting: set[asyncio.Task[None]] = set()
        total = int(self.load.rate * self.load.seconds)
        for number, body in enumerate(islice(cycle(self.load.bodies), total)):
            due = started + number / self.load.rate
            await asyncio.sleep(due - time.perf_counter())
            if len(waiting) >= MAX_WAITING:
                self.outcome.failed += 1
                continue
            task = asyncio.create_task(self._request(body, due))
            waiting.add(task)
            task.add_done_callback(waiting.discard)
        await asyncio.gather(*waiting)

    async def _by_callers(self, started: float) -> None:
        bodies = cycle(self.load.bodies)

        async def caller() -> None:
            while (now := time.perf_counter()) < started + self.load.seconds:
                await self._request(next(bodies), now)

        await asyncio.gather(*(caller() for _ in range(self.load.callers)))

    async def _request(self, body: bytes, due: float) -> None:
        import aiohttp

        try:
            async with self.session.post(self.load.url, data=body, headers=self.load.headers) as response:
                answer, status = await response.read(), response.status
        except (aiohttp.ClientError, TimeoutError):
            self.outcome.failed += 1
            return
        if status in (429, 503):
            self.outcome.refused += 1
        elif status != 200:
            self.outcome.failed += 1
        else:
            self.outcome.latencies.append(time.perf_counter() - due)
            self.outcome.changed += self.answers.setdefault(body, answer) != answer
