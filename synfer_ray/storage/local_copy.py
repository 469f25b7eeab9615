"""A remote folder as a local one, for libraries that read nothing else: one copy a node, whole or absent."""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path, PurePosixPath

from synfer_ray.errors import InputError
from synfer_ray.storage.fingerprint import fingerprint
from synfer_ray.storage.locations import filesystem

CACHE = "SYNFER_CACHE"
"""The environment variable with the folder of the copies; `~/.cache/synfer-ray` without it."""
PIN = "#"
ETAGS = ("ETag", "etag", "md5Hash", "created", "mtime")


def is_remote(uri: str) -> bool:
    """Whether `uri` names a protocol, such as s3://."""
    return "://" in uri


def pin(uri: str) -> str:
    """Returns `uri#state`, which stands for the files as they are now; a local path stays as it is."""
    if not is_remote(uri) or PIN in uri:
        return uri
    return f"{uri}{PIN}{_state(_listing(uri))}"


def local_copy(uri: str) -> Path:
    """Returns a local folder with all files below `uri`.

    Each state of them is downloaded once, by whichever process of the node comes first.

    Raises:
        InputError: nothing is there, a name leads out of the folder, or the files changed after `pin`.
    """
    uri, _, pinned = uri.partition(PIN)
    files = _listing(uri)
    state = _state(files)
    if pinned not in ("", state):
        raise InputError(f"{uri} changed while it was in use: state {pinned} became {state}")
    cache = Path(os.environ.get(CACHE, "~/.cache/synfer-ray")).expanduser()
    cache.mkdir(parents=True, exist_ok=True)
    folder = cache / state / PurePosixPath(uri).name
    with open(cache / f"{state}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            _download(uri, list(files), folder)
    return folder


def _download(uri: str, names: list[str], folder: Path) -> None:
    fs, root = filesystem(uri)
    with tempfile.TemporaryDirectory(dir=folder.parent.parent) as unfinished:
        target = Path(unfinished) / "files"
        for name in names:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
        fs.get([f"{root}/{name}" for name in names], [str(target / name) for name in names])
        folder.parent.mkdir(exist_ok=True)
        shutil.move(target, folder)


def _listing(uri: str) -> dict[str, list[str]]:
    """Returns what tells one state of each file from another, by name below the folder."""
    fs, root = filesystem(uri)
    fs.invalidate_cache()
    files = {
        path[len(root) + 1 :]: [str(info["size"]), *(str(info[key]) for key in ETAGS if key in info)]
        for path, info in sorted(fs.find(root, detail=True).items())
    }
    if not files:
        raise InputError(f"nothing is at {uri}")
    if strange := [
        name for name in files if not PurePosixPath(name).parts or ".." in PurePosixPath(name).parts
    ]:
        raise InputError(f"{uri} holds a file with a strange name: {strange[0]!r}")
    return files


def _state(files: dict[str, list[str]]) -> str:
    return fingerprint(files)
