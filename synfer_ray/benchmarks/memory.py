"""How much memory a Ray job takes while it runs: its driver, its workers, and Ray's own processes."""

import threading
import time
from collections import defaultdict
from types import TracebackType

import psutil

MIB = 2**20
KINDS = ("driver", "actors", "tasks", "gcs_server", "raylet")
"""This process, actors of the pools, other workers of Ray, and the two servers of Ray's core."""


class MemoryMeter:
    """Records the private memory (resident, less what is shared) of this process and its descendants.

    Attributes:
        moments: seconds since the start, one a sample.
        samples: MiB a sample by kind of process (`KINDS`), all of a kind together.

    Args:
        interval: seconds between two samples.
    """

    def __init__(self, interval: float = 1.0) -> None:
        self.interval = interval
        self.moments: list[float] = []
        self.samples: dict[str, list[float]] = {kind: [] for kind in KINDS}
        self._started = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "MemoryMeter":
        self._sample()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()

    def peak(self, kind: str) -> float:
        """Returns the most MiB that a kind of process took at once."""
        return max(self.samples[kind])

    def _watch(self) -> None:
        while not self._stop.wait(self.interval):
            self._sample()

    def _sample(self) -> None:
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
