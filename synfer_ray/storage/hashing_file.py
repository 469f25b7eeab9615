"""A file that knows its SHA-256 by the time it is written."""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from io import BufferedWriter, RawIOBase
from queue import SimpleQueue
from typing import Any, BinaryIO

FLUSH_BYTES = 4 * 2**20
"""A disk is kept busy in portions of this size, so that little is left to wait for at the end."""


class HashingFile(RawIOBase):
    """Passes bytes on to `file`, while a thread beside runs `digest_and_flush`."""

    def __init__(self, file: BinaryIO):
        self.file = file
        self.sha256 = hashlib.sha256()
        self.size = 0
        self._written: SimpleQueue[bytes | None] = SimpleQueue()

    def writable(self) -> bool:
        """Yes."""
        return True

    def write(self, data: Any) -> int:
        """Writes to the file, and hands the bytes to the thread."""
        self.file.write(data)
        self.size += len(data)
        self._written.put(bytes(data))
        return len(data)

    def finish(self) -> None:
        """Lets the thread end."""
        self._written.put(None)

    def digest_and_flush(self) -> None:
        """Works until `finish`.

        Raises:
            OSError: the disk does not take the bytes; a later flush need not say so again.
        """
        unflushed = 0
        while (data := self._written.get()) is not None:
            self.sha256.update(data)
            unflushed += len(data)
            if unflushed >= FLUSH_BYTES and isinstance(self.file, BufferedWriter):
                os.fsync(self.file.fileno())
                unflushed = 0


@contextmanager
def hashing(file: BinaryIO) -> Iterator[HashingFile]:
    """Wraps an open file; its `sha256` and `size` are complete when the block is left."""
    wrapped = HashingFile(file)
    with ThreadPoolExecutor(1) as beside:
        done = beside.submit(wrapped.digest_and_flush)
        try:
            yield wrapped
        finally:
            wrapped.finish()
        done.result()
