"""Something that is looked at again and again while a piece of work runs."""

import threading
from types import TracebackType
from typing import Self


class Meter:
    """Takes a sample at the start and at the end of a `with` block, and every `interval` seconds between."""

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self.sample()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.sample()

    def sample(self) -> None:
        """Records what it measures as it is now."""
        raise NotImplementedError

    def _watch(self) -> None:
        while not self._stop.wait(self.interval):
            self.sample()
