"""Where faces come from: an image folder, Parquet files or WebDataset tars, local or at any fsspec URI.

A source is opened once, which lists its files; any range of its rows can then be read on any machine.
"""

import csv
import io
import json
import tarfile
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate, groupby
from pathlib import PurePosixPath
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem

from synfer_ray.errors import InputError, choose
from synfer_ray.storage.locations import filesystem, list_files, read_files
from synfer_ray.taxonomy.expressions import ALIASES, EXPRESSIONS, clean_name

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
METADATA = "metadata.csv"


@dataclass(frozen=True)
class RawFace:
    """One row as found: the bytes of an image file, and its label in the source's own words or numbers."""

    name: str
    image: bytes
    label: str | int | None = None
    votes: list[float] | None = None


@dataclass(frozen=True)
class Columns:
    """The names of a source's columns; an empty name stands for none."""

    image: str = "image"
    label: str = ""
    votes: str = ""
    name: str = ""


class FaceSource(Protocol):
    """Rows 0..len-1 in a fixed order."""

    label_names: list[str] | None
    """What integer labels mean, if the source says so."""

    def __len__(self) -> int: ...

    def read(self, first: int, last: int) -> list[RawFace]:
        """Reads the rows first..last (inclusive)."""
        ...


def open_source(uri: str, columns: Columns) -> FaceSource:
    """Opens a folder, a file or a glob pattern; Parquet, tar or image folder follows from the files found.

    Raises:
        InputError: nothing is there, nothing of these kinds is there, or a named column is missing.
    """
    fs, root = filesystem(uri)
    paths = fs.glob(root) if "*" in root else [root] if fs.isfile(root) else list_files(fs, root)
    paths = sorted(path for path in paths if not PurePosixPath(path).name.startswith("."))
    if parquet := [path for path in paths if path.endswith(".parquet")]:
        return ParquetFaces(fs, parquet, columns)
    if tars := [path for path in paths if path.endswith(".tar")]:
        return TarFaces(fs, tars, columns)
    if images := [path for path in paths if path.lower().endswith(IMAGE_SUFFIXES)]:
        return FolderFaces(fs, root, images, columns)
    raise InputError(
        f"no faces at {uri}: {len(paths)} files, none of them .parquet, .tar, {', '.join(IMAGE_SUFFIXES)}"
    )


class FolderFaces:
    """Image files; labels from `metadata.csv` (columns file_name and the label), else from class folders.

    Folders are classes if the name of at least one of them is an expression.
    """

    label_names: list[str] | None = None

    def __init__(self, fs: AbstractFileSystem, root: str, paths: list[str], columns: Columns):
        self.fs = fs
        self.paths = paths
        self.root = root if fs.isdir(root) else str(PurePosixPath(paths[0]).parent)
        self.labels = self._metadata(columns.label) or self._class_folders()

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, first: int, last: int) -> list[RawFace]:
        """Reads the rows first..last (inclusive)."""
        paths = self.paths[first : last + 1]
        names = [self._name(path) for path in paths]
        contents = read_files(self.fs, paths)
        return [RawFace(name, content, self.labels.get(name)) for name, content in zip(names, contents)]

    def _name(self, path: str) -> str:
        return str(PurePosixPath(path).relative_to(self.root))

    def _metadata(self, label: str) -> dict[str, str]:
        path = f"{self.root}/{METADATA}"
        if not label or not self.fs.exists(path):
            return {}
        rows = list(csv.DictReader(io.StringIO(self.fs.cat_file(path).decode())))
        for column in ("file_name", label):
            choose(column, rows[0] if rows else [], f"column of {path}")
        return {row["file_name"]: row[label] for row in rows}

    def _class_folders(self) -> dict[str, str]:
        folders = {self._name(path): PurePosixPath(path).parent.name for path in self.paths}
        known = {*EXPRESSIONS, *ALIASES}
        return folders if any(clean_name(folder) in known for folder in folders.values()) else {}


class ParquetFaces:
    """Parquet files, plain or from Hugging Face `datasets` (its ClassLabel names are used)."""

    def __init__(self, fs: AbstractFileSystem, paths: list[str], columns: Columns):
        self.fs = fs
        self.paths = paths
        self.columns = columns
        metadata = []
        for path in paths:
            with fs.open(path) as file:
                metadata.append(_parquet_file(file, path).metadata)
        self.ends = list(accumulate(file.num_rows for file in metadata))
        schema = metadata[0].schema.to_arrow_schema()
        wanted = (columns.image, columns.label, columns.votes, columns.name)
        self.wanted = [choose(name, schema.names, f"column of {paths[0]}") for name in wanted if name]
        self.label_names = _class_names(schema, columns.label)

    def __len__(self) -> int:
        return self.ends[-1]

    def read(self, first: int, last: int) -> list[RawFace]:
        """Reads the rows first..last (inclusive), from the row groups that hold them."""
        faces: list[RawFace] = []
        while first <= last:
            number = bisect_right(self.ends, first)
            start = self.ends[number - 1] if number else 0
            stop = min(last + 1, self.ends[number])
            faces += self._read_file(self.paths[number], first - start, stop - start)
            first = stop
        return faces

    def _read_file(self, path: str, start: int, stop: int) -> list[RawFace]:
        with self.fs.open(path) as file:
            parquet = _parquet_file(file, path)
            sizes = [parquet.metadata.row_group(i).num_rows for i in range(parquet.num_row_groups)]
            ends = list(accumulate(sizes))
            groups = range(bisect_right(ends, start), bisect_right(ends, stop - 1) + 1)
            table = parquet.read_row_groups(list(groups), columns=self.wanted)
        offset = ends[groups[0]] - sizes[groups[0]]
        rows = table.slice(start - offset, stop - start).to_pylist()
        return [self._face(row, f"{PurePosixPath(path).stem}-{start + i:07d}") for i, row in enumerate(rows)]

    def _face(self, row: dict[str, Any], place: str) -> RawFace:
        image = row[self.columns.image]
        content = image["bytes"] if isinstance(image, dict) else image
        name = row.get(self.columns.name) or place
        return RawFace(str(name), content or b"", row.get(self.columns.label), row.get(self.columns.votes))


class TarFaces:
    """WebDataset tars: `KEY.jpg` with its label in `KEY.cls`, or in `KEY.json` as the label column."""

    label_names: list[str] | None = None

    def __init__(self, fs: AbstractFileSystem, paths: list[str], columns: Columns):
        self.fs = fs
        self.columns = columns
        self.samples = [sample for path in paths for sample in _tar_samples(fs, path)]
        if not self.samples:
            raise InputError(f"no images in {', '.join(paths[:3])}")

    def __len__(self) -> int:
        return len(self.samples)

    def read(self, first: int, last: int) -> list[RawFace]:
        """Reads the rows first..last (inclusive) by their byte ranges."""
        return [self._face(*sample) for sample in self.samples[first : last + 1]]

    def _face(self, path: str, key: str, members: dict[str, tuple[int, int]]) -> RawFace:
        def content(suffix: str) -> bytes:
            start, size = members[suffix]
            return self.fs.cat_file(path, start=start, end=start + size)

        fields = _json_fields(content(".json")) if ".json" in members else {}
        if ".cls" in members:
            fields[self.columns.label] = content(".cls").decode(errors="replace").strip()
        image = next(content(suffix) for suffix in IMAGE_SUFFIXES if suffix in members)
        label, votes = fields.get(self.columns.label), fields.get(self.columns.votes)
        return RawFace(f"{PurePosixPath(path).stem}/{key}", image, label, votes)


def _tar_samples(fs: AbstractFileSystem, path: str) -> list[tuple[str, str, dict[str, tuple[int, int]]]]:
    """Lists (path, key, suffix -> byte range) of every sample that has an image, reading headers only."""
    try:
        with fs.open(path) as file, tarfile.open(fileobj=file, mode="r:") as tar:
            members = [member for member in tar if member.isfile()]
    except tarfile.TarError as error:
        raise InputError(f"damaged tar file: {path}: {error}") from error
    samples = []
    for key, group in groupby(members, key=lambda member: member.name.split("/")[-1].split(".")[0]):
        ranges = {PurePosixPath(m.name).suffix.lower(): (m.offset_data, m.size) for m in group}
        if not ranges.keys().isdisjoint(IMAGE_SUFFIXES):
            samples.append((path, key, ranges))
    return samples


def _json_fields(data: bytes) -> dict[str, Any]:
    """A damaged file says nothing, like one that is not there."""
    try:
        fields = json.loads(data)
    except ValueError:
        return {}
    return fields if isinstance(fields, dict) else {}


def _parquet_file(file: Any, path: str) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(file)
    except pa.ArrowInvalid as error:
        raise InputError(f"damaged Parquet file: {path}: {error}") from error


def _class_names(schema: pa.Schema, column: str) -> list[str] | None:
    text = (schema.metadata or {}).get(b"huggingface")
    features = json.loads(text)["info"]["features"] if text else {}
    return features.get(column, {}).get("names")
