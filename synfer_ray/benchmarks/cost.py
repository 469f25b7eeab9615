"""What a piece of work costs: wall clock and CPU time, of this process or of all processes of a Ray job."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import psutil
import torch

from synfer_ray.benchmarks.meter import Meter


class Summed:
    """A dataclass whose sum with another of its kind is the sum of each field."""

    def __add__(self, other: Self) -> Self:
        return type(self)(**{name: value + vars(other)[name] for name, value in vars(self).items()})


@dataclass(frozen=True)
class Cost(Summed):
    """Seconds on the wall clock and of CPU time; the quotient of two costs is a pair of ratios."""

    wall: float
    cpu: float

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(self.wall - other.wall, self.cpu - other.cpu)

    def __mul__(self, times: float) -> "Cost":
        return Cost(self.wall * times, self.cpu * times)

    def __truediv__(self, other: "Cost") -> "Cost":
        return Cost(self.wall / other.wall, self.cpu / other.cpu)


def measure(work: Callable[[], object]) -> Cost:
    """Does the work once, in this process and on its GPU."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def interleave(
    works: Mapping[str, Callable[[], object]],
    repetitions: int,
    before: Callable[[], object] = lambda: None,
) -> list[dict[str, Cost]]:
    """Does all works in turn, `repetitions` times, so that a busy minute of the machine meets them alike.

    A first turn, which pays for what is built once, is not counted, nor is what happens `before` each work.
    """

    def measure_clean(work: Callable[[], object]) -> Cost:
        before()
        return measure(work)

    turns = [{name: measure_clean(work) for name, work in works.items()} for _ in range(repetitions + 1)]
    return turns[1:]


def median(costs: Sequence[Cost]) -> Cost:
    """Returns the medians of both times."""
    return Cost(statistics.median(cost.wall for cost in costs), statistics.median(cost.cpu for cost in costs))


class CpuMeter(Meter):
    """Records the CPU time of this process and its descendants, those that end meanwhile included.

    What a process uses between its last sample and its end is lost; workers on other machines are not seen.
    """

    def __init__(self, interval: float = 0.5) -> None:
        super().__init__(interval)
        self._used: dict[tuple[int, float], float] = {}  # by process id and start: ids are used again
        self._moments: list[float] = []
        self._totals: list[float] = []

    def cost(self, start: float, end: float) -> Cost:
        """Returns the cost of the time from `start` to `end`, both as of `time.time()`."""
        before, after = np.interp([start, end], self._moments, self._totals)
        return Cost(end - start, float(after - before))

    def sample(self) -> None:
        """Adds up the CPU time used so far."""
        this = psutil.Process()
        for process in [this, *this.children(recursive=True)]:
            try:
                times = process.cpu_times()
                self._used[process.pid, process.create_time()] = times.user + times.system
            except psutil.NoSuchProcess:
                continue
        self._moments.append(time.time())
        self._totals.append(sum(self._used.values()))
