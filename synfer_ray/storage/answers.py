"""Answers of language models, kept before they are used: asked once, then the same for ever."""

import json
import re
from collections.abc import Mapping

from synfer_ray.storage.fingerprint import fingerprint
from synfer_ray.storage.locations import Location, create_bytes, filesystem, list_files, write_bytes

FOLDER = "answers"
SPAN = re.compile(r"/(\d+)-(\d+)-[0-9a-f]{16}\.jsonl$")
MAX_BYTES, MAX_CHARS = 64 << 20, 64 << 10
"""What is read of a file, and of an answer."""


Kept = tuple[str, str]
"""A text and its fault, empty if it has none."""


class AnswerStore:
    """A folder of JSON lines, `{"key": ..., "text": ..., "fault": ...}`; a key is a fingerprint of content.

    A file holds what was asked at once. Its name tells the rows it was asked for, so that a shard finds its
    own among millions; runs with another model or seed may share the folder.
    """

    def __init__(self, folder: Location) -> None:
        self.fs, self.folder = filesystem(folder)

    def read(self, first: int, last: int) -> dict[str, Kept]:
        """Returns by key what was asked for rows first..last; damaged lines do not count."""
        spans = ((path, SPAN.search(path)) for path in list_files(self.fs, self.folder))
        paths = [path for path, span in spans if span and int(span[1]) <= last and int(span[2]) >= first]
        return self._load(paths)

    def write(self, first: int, last: int, answers: Mapping[str, Kept]) -> dict[str, Kept]:
        """Keeps what was asked for rows first..last.

        Returns:
            what is kept: if two ask the same at once, the first to write has the last word.
        """
        lines = [
            json.dumps({"key": key, "text": text, "fault": fault}) for key, (text, fault) in answers.items()
        ]
        path = f"{self.folder}/{first:08d}-{last:08d}-{fingerprint(sorted(answers))}.jsonl"
        content = ("\n".join(lines) + "\n").encode()
        try:
            create_bytes(self.fs, path, content)
        except FileExistsError:
            kept = self._load([path])
            if kept.keys() == answers.keys():
                return kept
            write_bytes(self.fs, path, content)  # what is there is damaged
        return dict(answers)

    def _load(self, paths: list[str]) -> dict[str, Kept]:
        files = self.fs.cat_ranges(paths, 0, MAX_BYTES, on_error="raise") if paths else []
        return {key: answer for file in files for line in file.splitlines() for key, answer in _parse(line)}


def _parse(line: bytes) -> list[tuple[str, Kept]]:
    try:
        record = json.loads(line)
        key, text, fault = record["key"], record["text"], record["fault"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return []
    are_texts = all(isinstance(value, str) and len(value) <= MAX_CHARS for value in (key, text, fault))
    return [(key, (text, fault))] if are_texts else []
