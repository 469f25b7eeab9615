import hashlib
import os
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from synfer_ray.storage import hashing_file
from synfer_ray.storage.hashing_file import hashing


@given(st.lists(st.binary(max_size=200), max_size=30))
def test_the_bytes_arrive_and_are_hashed_as_they_are(pieces):
    file = BytesIO()
    with hashing(file) as hashed:
        for piece in pieces:
            hashed.write(memoryview(piece))
    assert file.getvalue() == b"".join(pieces)
    assert hashed.size == len(file.getvalue())
    assert hashed.sha256.hexdigest() == hashlib.sha256(file.getvalue()).hexdigest()


def test_a_disk_that_fails_on_the_way_fails_the_write(tmp_path, monkeypatch):
    """The kernel reports a failed flush once; a later one would pass."""
    monkeypatch.setattr(hashing_file, "FLUSH_BYTES", 10)

    def fail(_):
        monkeypatch.undo()
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with (
        open(tmp_path / "file", "xb") as file,
        pytest.raises(OSError, match="Input/output"),
        hashing(file) as hashed,
    ):
        hashed.write(bytes(20))


def test_the_writers_own_error_comes_through():
    with pytest.raises(ZeroDivisionError), hashing(BytesIO()) as hashed:
        hashed.write(b"half")
        raise ZeroDivisionError
