"""Where a dataset lives: a local folder or any fsspec URI (s3://, gs://, memory://)."""

import os
from pathlib import Path
from uuid import uuid4

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from synfer_ray.errors import InputError

Location = str | os.PathLike[str]

UNFINISHED = ".tmp"


def filesystem(uri: Location) -> tuple[AbstractFileSystem, str]:
    """Returns the file system of `uri` and the path within it. Credentials come from fsspec's own settings.

    Raises:
        InputError: the protocol is unknown or its library is not installed.
    """
    try:
        fs, path = url_to_fs(uri)
    except (ValueError, ImportError) as error:
        raise InputError(f"cannot open {uri}: {error}") from error
    return fs, path.rstrip("/")


def join(uri: Location, *parts: str) -> str:
    """Returns `uri/part/part`."""
    return "/".join([os.fspath(uri).rstrip("/"), *parts])


def list_files(fs: AbstractFileSystem, folder: str) -> list[str]:
    """Returns the sorted paths of all files below `folder` as they are now; none if it does not exist."""
    fs.invalidate_cache()
    return sorted(fs.find(folder))


def read_files(fs: AbstractFileSystem, paths: list[str]) -> list[bytes]:
    """Returns the bytes of each file; object stores answer in parallel."""
    return fs.cat_ranges(paths, None, None, on_error="raise") if paths else []


def write_bytes(fs: AbstractFileSystem, path: str, data: bytes) -> None:
    """Writes a whole file at once: readers see the old bytes or the new ones, never a part.

    A local file is written beside its target, flushed to the disk and renamed; an object store gets one put.
    """
    if isinstance(fs, LocalFileSystem):
        _replace(Path(path), data)
    else:
        fs.pipe_file(path, data)


def _replace(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.{uuid4().hex[:8]}{UNFINISHED}")
    try:
        with unfinished.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, target)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise
    folder = os.open(target.parent, os.O_RDONLY)  # the rename itself lasts once its folder is flushed
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
