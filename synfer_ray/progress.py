"""A run as its driver sees it: counted commit by commit, told once a minute."""

import os
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from types import TracebackType

from synfer_ray.metrics import RunMetrics
from synfer_ray.reporting.pace import Pace
from synfer_ray.storage.locations import Location
from synfer_ray.storage.shards import Commit

LINE_SECONDS = "SYNFER_LINE_SECONDS"
"""The environment variable with the seconds between two lines of progress; 60 without it."""


class Progress:
    """Counts a run's commits. Off a terminal it prints a line a minute; on one, Ray shows its bars.

    Args:
        output: names the run.
        settled: rows that earlier runs settled.
        to_do: rows of this run.
        actors: how many actors there may be, by stage.
    """

    def __init__(self, output: Location, settled: int, to_do: int, actors: Mapping[str, int]):
        self.metrics = RunMetrics(os.fspath(output).rstrip("/").rsplit("/", 1)[-1])
        self.before, self.planned, self.actors = settled, settled + to_do, actors
        self.settled = self.last_settled = settled
        self.started = self.last_moment = time.monotonic()
        self.reasons: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.ended = threading.Event()
        self.teller = threading.Thread(target=self._tell, name="progress", daemon=True)

    def __enter__(self) -> "Progress":
        self.teller.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.ended.set()
        self.teller.join()

    def add(self, commit: Commit) -> None:
        """Counts a shard."""
        with self.lock:
            self.settled += commit.rows + commit.rejects
            self.reasons.update(commit.reasons)
            self.seconds.update(commit.seconds)
        self.metrics.count(commit)

    def pace(self) -> Pace:
        """Returns where the run is, with the rate and the work since it was last asked."""
        with self.lock:
            now = time.monotonic()
            elapsed = max(now - self.last_moment, 1e-9)
            here = self.settled - self.before
            left = self.planned - self.settled
            pace = Pace(
                self.settled,
                self.planned,
                (self.settled - self.last_settled) / elapsed,
                left * (now - self.started) / here if here else None,
                dict(self.reasons),
                {stage: self._busy(stage, seconds / elapsed) for stage, seconds in self.seconds.items()},
                self.actors,
            )
            self.last_moment, self.last_settled = now, self.settled
            self.seconds.clear()
            return pace

    def _busy(self, stage: str, actors: float) -> float:
        """A shard that just ended may have begun before the time that is looked at."""
        return min(actors, self.actors.get(stage, actors))

    def _tell(self) -> None:
        every = float(os.environ.get(LINE_SECONDS, 60))
        while not self.ended.wait(every):
            self._show()
        self._show()

    def _show(self) -> None:
        pace = self.pace()
        self.metrics.show(pace)
        if not sys.stderr.isatty():
            print(pace, flush=True)
