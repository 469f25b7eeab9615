"""How much memory a Ray job takes while it runs: its driver, its workers, and Ray's own processes."""

import time
from collections import defaultdict

import psutil

from synfer_ray.benchmarks.meter import Meter

MIB = 2**20
KINDS = ("driver", "actors", "tasks", "gcs_server", "raylet")
"""This process, actors of the pools, other workers of Ray, and the two servers of Ray's core."""


class MemoryMeter(Meter):
    """Records the private memory (resident, less what is shared) of this process and its descendants.

    Attributes:
        moments: seconds since the start, one a sample.
        samples: MiB a sample by kind of process (`KINDS`), all of a kind together.
    """

    def __init__(self, interval: float = 1.0) -> None:
        super().__init__(interval)
        self.moments: list[float] = []
        self.samples: dict[str, list[float]] = {kind: [] for kind in KINDS}
        self._started = time.monotonic()

    def peak(self, kind: str) -> float:
        """Returns the most MiB that a kind of process took at once."""
        return max(self.samples[kind])

    def sample(self) -> None:
        """Adds up the memory that is taken now."""
        this = psutil.Process()
        taken = defaultdict(float, driver=private_mib(this))
        for process in this.children(recursive=True):
            try:
                taken[kind_of(process.name())] += private_mib(process)
            except psutil.NoSuchProcess:
                continue
        self.moments.append(time.monotonic() - self._started)
        for kind, series in self.samples.items():
            series.append(taken[kind])


def kind_of(name: str) -> str:
    """Returns the kind of a process by its name, of which the system keeps 15 letters."""
    if name.startswith("ray::MapWorker"):
        return "actors"
    return "tasks" if name.startswith("ray::") else name


def private_mib(process: psutil.Process) -> float:
    """Returns the resident memory of a process in MiB, without the pages it shares (Ray's object store)."""
    memory = process.memory_info()
    return (memory.rss - getattr(memory, "shared", 0)) / MIB
