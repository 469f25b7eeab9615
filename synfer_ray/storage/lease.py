"""One driver at a time: whoever writes to a dataset holds its lease.

The lease is a file that its holder changes every few seconds. Nobody compares clocks: another driver takes it
over when its process on this machine is dead, or after it has itself watched the file for `MISSED` beats
without a change. A holder that slept so long finds another name in the file and stops. What its actors still
write does no harm: the shards of a plan have fixed names and the same bytes whoever makes them.
"""

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import psutil

from synfer_ray.errors import InputError, RunFailed
from synfer_ray.storage.locations import Location, create_bytes, filesystem, storage_may_fail, write_bytes
from synfer_ray.storage.manifest import LEASE, check_vacant

BEAT = 5.0
"""Seconds between two beats."""
MISSED = 6
"""Beats without a change after which a lease is free."""


@dataclass(frozen=True)
class Holder:
    """The content of a lease."""

    owner: str
    host: str = ""
    pid: int = 0
    started: float = 0.0
    """When the process began: another one may get the same pid."""
    beat: int = 0
    beat_at: str = ""
    """UTC, ISO 8601. For the reader; nothing is decided by it."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host.partition('/')[0]}" if self.host else "another process"

    @property
    def is_here(self) -> bool:
        """Whether it ran on this machine since it was last booted."""
        return self.host == this_host()

    @property
    def is_running(self) -> bool:
        """Whether its process, which is one of this machine, is alive."""
        try:
            return abs(psutil.Process(self.pid).create_time() - self.started) < 10
        except (psutil.Error, TypeError, ValueError):
            return False


@contextmanager
def hold_lease(output: Location) -> Iterator[None]:
    """Lets no other driver write to `output` meanwhile.

    Raises:
        InputError: another driver holds it, or the folder holds the files of somebody else.
        RunFailed: another driver took it over, because this process did not run for some time.
    """
    check_vacant(output)
    lease = Lease(output)
    lease.take()
    try:
        yield
    except KeyboardInterrupt:
        if lease.lost_to is None:
            raise
        raise RunFailed(f"{output} was taken over by {lease.lost_to}, which continues") from None
    finally:
        lease.release()


def read_lease(output: Location) -> Holder | None:
    """Returns who holds the lease; None if nobody does."""
    fs, root = filesystem(output)
    try:
        content = fs.cat_file(f"{root}/{LEASE}")
    except FileNotFoundError:
        return None
    try:
        return Holder(**json.loads(content))
    except (ValueError, TypeError):
        return Holder(owner=repr(content))  # not ours to understand: it counts as long as it changes


def this_host() -> str:
    """Names this machine as it is booted now."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{socket.gethostname()}/{boot.read_text().strip() if boot.exists() else ''}"


class Lease:
    """Takes, keeps and returns the lease of a dataset folder."""

    def __init__(self, output: Location):
        self.output = output
        self.fs, root = filesystem(output)
        self.path = f"{root}/{LEASE}"
        pid = os.getpid()
        self.holder = Holder(uuid4().hex, this_host(), pid, psutil.Process(pid).create_time())
        self.lost_to: Holder | None = None
        self.driver = threading.current_thread()
        is_main = self.driver is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts a job with `&`
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self.ended = threading.Event()
        self.heart = threading.Thread(target=self._beat, name="lease", daemon=True)

    def take(self) -> None:
        """Writes our name where there is none, or a dead one, and begins to beat.

        Raises:
            InputError: a living driver holds the lease.
        """
        while not self._create():
            if (other := read_lease(self.output)) and other.owner != self.holder.owner:
                self._outwait(other)
                self._remove()
        self.heart.start()

    def release(self) -> None:
        """Stops beating and removes the file, if it is still ours and within reach."""
        self.ended.set()
        self.heart.join()
        with storage_may_fail():
            if (holder := read_lease(self.output)) and holder.owner == self.holder.owner:
                self._remove()

    def _create(self) -> bool:
        try:
            create_bytes(self.fs, self.path, self._content())
        except FileExistsError:
            holder = read_lease(self.output)  # a put that was answered late and sent again finds itself
            return holder is not None and holder.owner == self.holder.owner
        return True

    def _outwait(self, other: Holder) -> None:
        """Returns when the holder is dead, or was silent for long enough."""
        busy = InputError(
            f"{self.output} is being written by {other}: wait for it, stop it, or choose another output"
        )
        if other.is_here:
            if other.is_running:
                raise busy
            return
        print(f"{self.output} was left by {other}; taking it over if it stays silent", flush=True)
        for _ in range(MISSED):
            time.sleep(BEAT)
            if read_lease(self.output) != other:
                raise busy

    def _beat(self) -> None:
        while not self.ended.wait(BEAT):
            with storage_may_fail():  # it may be back at the next beat; if not, the shards fail too
                holder = read_lease(self.output)
                if holder and holder.owner != self.holder.owner:
                    self.lost_to = holder
                    signal.pthread_kill(self.driver.ident, signal.SIGINT)  # type: ignore[arg-type]
                    return
                self.holder = replace(self.holder, beat=self.holder.beat + 1)
                write_bytes(self.fs, self.path, self._content())

    def _remove(self) -> None:
        with suppress(FileNotFoundError):
            self.fs.rm_file(self.path)

    def _content(self) -> bytes:
        beat_at = datetime.now(UTC).isoformat(timespec="seconds")
        return json.dumps(asdict(replace(self.holder, beat_at=beat_at))).encode()
