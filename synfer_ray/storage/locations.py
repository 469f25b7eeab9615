"""Where a dataset lives: a local folder or any fsspec URI (s3://, gs://, memory://)."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from fsspec import AbstractFileSystem
from fsspec.core import url_to_fs
from fsspec.implementations.local import LocalFileSystem

from synfer_ray.errors import InputError

Location = str | os.PathLike[str]

UNFINISHED = ".tmp"

S3_RETRIES = {"mode": "standard", "total_max_attempts": 4}
"""Of one request, by botocore; it waits longer each time. `S3_ROUNDS` of these end in an error."""
S3_ROUNDS = 2


def filesystem(uri: Location) -> tuple[AbstractFileSystem, str]:
    """Returns the file system of `uri` and the path within it.

    Credentials and endpoints come from the environment (`AWS_ENDPOINT_URL`, ...) or fsspec's own settings.
    Requests to S3 are tried `S3_RETRIES` times, so that a store that is down ends a run in minutes.

    Raises:
        InputError: the protocol is unknown or its library is not installed.
    """
    is_s3 = os.fspath(uri).startswith(("s3://", "s3a://"))
    try:
        fs, path = url_to_fs(uri, **({"config_kwargs": {"retries": S3_RETRIES}} if is_s3 else {}))
    except (ValueError, ImportError) as error:
        raise InputError(f"cannot open {uri}: {error}") from error
    if is_s3:
        fs.retries = S3_ROUNDS
    return fs, path.rstrip("/")


def is_storage_error(error: BaseException | None) -> bool:
    """Whether a disk or an object store is to blame: full, read-only, forbidden, missing, out of reach."""
    return isinstance(error, OSError) or type(error).__module__.startswith(("botocore.", "aiobotocore."))


@contextmanager
def storage_may_fail() -> Iterator[None]:
    """Lets the errors of disks and object stores pass."""
    try:
        yield
    except Exception as error:
        if not is_storage_error(error):
            raise


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


@contextmanager
def whole_file(fs: AbstractFileSystem, path: str) -> Iterator[BinaryIO]:
    """Opens a file that readers see as a whole or not at all, and not if the block raises.

    A local file is written beside its target, flushed to the disk and renamed; an object store gets one put.
    """
    if isinstance(fs, LocalFileSystem):
        with _replacing(Path(path)) as file:
            yield file
    else:
        buffer = BytesIO()
        yield buffer
        fs.pipe_file(path, buffer.getvalue())


def write_bytes(fs: AbstractFileSystem, path: str, data: bytes) -> None:
    """Writes a `whole_file`."""
    with whole_file(fs, path) as file:
        file.write(data)


def create_bytes(fs: AbstractFileSystem, path: str, data: bytes) -> None:
    """Makes a small file that is not there yet: of two processes that try, one succeeds.

    Raises:
        FileExistsError: the file is there.
    """
    if isinstance(fs, LocalFileSystem):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        with open(path, "xb") as file:
            file.write(data)
    else:
        fs.pipe_file(path, data, mode="create")


@contextmanager
def _replacing(target: Path) -> Iterator[BinaryIO]:
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.{uuid4().hex[:8]}{UNFINISHED}")
    try:
        with unfinished.open("xb") as file:
            yield file
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
