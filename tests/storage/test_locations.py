import os
import uuid

import pytest

from synfer_ray.errors import InputError
from synfer_ray.storage.locations import filesystem, join, list_files, read_files, write_bytes


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
    return str(tmp_path / "a[1] b") if request.param == "local" else f"memory://{uuid.uuid4().hex}"


def test_bytes_written_are_bytes_read(folder):
    fs, root = filesystem(folder)
    assert list_files(fs, root) == []
    assert read_files(fs, []) == []
    for name in ("deep/er/two", "one"):
        write_bytes(fs, f"{root}/{name}", name.encode())
    paths = list_files(fs, root)
    assert paths == [f"{root}/deep/er/two", f"{root}/one"]
    assert read_files(fs, paths) == [b"deep/er/two", b"one"]


def test_join_makes_no_double_slash(tmp_path):
    assert join("s3://bucket/out/", "data", "x") == "s3://bucket/out/data/x"
    assert join(tmp_path, "x") == f"{tmp_path}/x"


def test_an_unknown_protocol_is_named():
    with pytest.raises(InputError, match="floppy"):
        filesystem("floppy://disk/out")


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_bytes_and_no_rubbish(tmp_path, monkeypatch, step):
    fs, root = filesystem(tmp_path)
    write_bytes(fs, f"{root}/file", b"old")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        write_bytes(fs, f"{root}/file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"
