"""Rows that kill their actor: tried a few times with their shard, with their batch, alone, and then rejected.

Ray starts a dead actor again and gives it the same shard, without end. An actor in a second life therefore
leaves a marker in the output before it tries some rows, and removes it afterwards: a marker that stays is a
death. Rows with `MAX_ATTEMPTS` of them are tried in smaller parts, each row at its own place of a batch, so
that the survivors' bytes are the same. The markers outlive the driver. A first life costs nothing.
"""

from collections.abc import Iterator
from contextlib import suppress

from synfer_ray.stages.sample_rows import Row, device_batches, rejection
from synfer_ray.storage.locations import Location, create_bytes, filesystem, list_files

FOLDER = "attempts"
MAX_ATTEMPTS = 2


class Attempts:
    """The record of one stage's attempts in the `output` of its run."""

    def __init__(self, output: Location, stage: str):
        self.fs, root = filesystem(output)
        self.folder = f"{root}/{FOLDER}"
        self.stage = stage
        self.is_second_life = is_second_life()

    def batches(self, rows: list[Row], size: int) -> Iterator[tuple[list[Row], list[Row]]]:
        """Yields what `device_batches` yields; rejects rows that killed their actor when alone."""
        for part in self.parts(rows, size) if self.is_second_life else [rows]:
            yield from device_batches(part, size)

    def parts(self, rows: list[Row], size: int) -> Iterator[list[Row]]:
        """Yields the rows in parts that have attempts left: all of them, a batch, or a single row."""
        if not rows:
            return
        if self.begin(rows):
            yield rows
            self.end(rows)
            return
        if len(rows) == 1:
            detail = f"the process died in each of {MAX_ATTEMPTS} attempts"
            rows[0] |= rejection(self.stage, "crashed", detail)
            return
        batches = [group for group, _ in device_batches(rows, size)]
        for part in batches if len(batches) > 1 else [[row] for row in rows]:
            yield from self.parts(part, size)

    def begin(self, rows: list[Row]) -> bool:
        """Marks an attempt; False if there are none left."""
        for marker in self._markers(rows):
            with suppress(FileExistsError):
                create_bytes(self.fs, marker, b"")
                return True
        return False

    def end(self, rows: list[Row]) -> None:
        """Forgets the attempts at rows that survived."""
        for marker in self._markers(rows):
            with suppress(FileNotFoundError):
                self.fs.rm_file(marker)

    def _markers(self, rows: list[Row]) -> list[str]:
        span = f"{rows[0]['index']:08d}-{rows[-1]['index']:08d}"
        return [f"{self.folder}/{self.stage}-{span}.{attempt}" for attempt in range(1, MAX_ATTEMPTS + 1)]


def is_second_life() -> bool:
    """Whether this process is an actor that Ray started again after its death."""
    import ray

    if not ray.is_initialized():
        return False
    context = ray.get_runtime_context()
    return context.get_actor_id() is not None and bool(context.was_current_actor_reconstructed)


def clear_attempts(output: Location) -> None:
    """Removes the markers of a run that is over."""
    fs, root = filesystem(output)
    for path in list_files(fs, f"{root}/{FOLDER}"):
        fs.rm_file(path)
