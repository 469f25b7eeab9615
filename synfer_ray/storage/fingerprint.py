"""Short names for content: equal fingerprints mean equal settings or equal files."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

DIGITS = 16


def canonical_json(value: Any) -> str:
    """Returns the one JSON text of `value`: sorted keys, no spaces; dataclasses count as dictionaries.

    Raises:
        TypeError: a value has no JSON form.
        ValueError: a number is not finite.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain)


def fingerprint(value: Any) -> str:
    """Returns the first 16 hexadecimal digits of the SHA-256 of the canonical JSON of `value`."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()[:DIGITS]


def fingerprint_folder(path: str | Path) -> str:
    """Returns the fingerprint of the names and bytes of all files below a local folder.

    Hidden files and folders do not count: download tools and file browsers leave them behind.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    root = Path(path)
    if not root.is_dir():
        raise FileNotFoundError(f"no such folder: {root}")
    digests = {}
    for file in root.rglob("*"):
        name = file.relative_to(root)
        if file.is_file() and not any(part.startswith(".") for part in name.parts):
            with file.open("rb") as stream:
                digests[name.as_posix()] = hashlib.file_digest(stream, "sha256").hexdigest()
    return fingerprint(digests)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Path):
        return value.as_posix()
    raise TypeError(f"{type(value).__name__} {value!r} has no JSON form")
