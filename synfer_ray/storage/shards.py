"""Shards: the unit of work that is either committed, with every row accounted for, or does not exist.

A shard becomes part of the dataset when its commit record is in place. The record is written last and holds
the hash of every file, so that a crash at any moment leaves a whole shard or files that nobody refers to.

Why not the checkpoints of Ray Data: a shard has two outputs, samples and rejects; its filter actor may take
the last CPU of a small machine; and small inputs are coalesced, so that all is committed at the very end.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from fsspec import AbstractFileSystem

from synfer_ray.errors import InputError
from synfer_ray.storage.fingerprint import fingerprint
from synfer_ray.storage.hashing_file import hashing
from synfer_ray.storage.locations import (
    UNFINISHED,
    Location,
    filesystem,
    list_files,
    read_files,
    whole_file,
    write_bytes,
)
from synfer_ray.taxonomy.expressions import EXPRESSIONS

DATA, REJECTS, COMMITS = "data", "rejects", "commits"
ROW_GROUP = 100


@dataclass(frozen=True)
class Commit:
    """What one shard settled. All totals of a dataset are sums over its commits."""

    first: int
    last: int
    rows: int
    rejects: int
    reasons: dict[str, int]
    """Rejected rows by reason."""
    labels: dict[str, dict[str, int]]
    """Rows by assigned and then by calibrated expression."""
    decisions: dict[str, int]
    """Rows by what the vote decided."""
    files: dict[str, dict[str, str | int]]
    """Name below the output -> sha256 and bytes."""
    committed_at: str
    """UTC, ISO 8601. Informative only: nothing is decided by a clock."""
    indices: list[int] | None = None
    """The settled plan rows if they are not all of first..last."""
    seconds: dict[str, float] = field(default_factory=dict)
    """What the stages with a model took, by stage."""
    unguided: int = 0
    """Rows in which semantic guidance was left out of at least one step."""
    writers: dict[str, int] = field(default_factory=dict)
    """Rows by who wrote their prompt or caption, if a language model was asked."""

    def to_json(self) -> str:
        """Returns the record as it is stored, with a digest of itself."""
        record = asdict(self)
        return json.dumps(record | {"digest": fingerprint(record)})

    @staticmethod
    def from_json(text: str | bytes) -> "Commit":
        """Reads a record.

        Raises:
            ValueError, TypeError: it is not what was stored.
        """
        record = json.loads(text)
        if record.pop("digest", None) not in (None, fingerprint(record)):  # version 0.1.0 wrote no digest
            raise ValueError("an altered commit record")
        return Commit(**record)

    @property
    def record(self) -> str:
        """The name of the commit record below the output."""
        return f"{COMMITS}/{self.first:08d}-{self.last:08d}.json"

    @property
    def settled(self) -> Iterable[int]:
        """The indices of the plan rows that this shard wrote or rejected."""
        return range(self.first, self.last + 1) if self.indices is None else self.indices

    @property
    def data_file(self) -> str | None:
        """The Parquet file of samples; None if every row was rejected."""
        return next((name for name in self.files if name.startswith(f"{DATA}/")), None)

    @property
    def reject_file(self) -> str | None:
        """The Parquet file of rejected rows; None if there are none."""
        return next((name for name in self.files if name.startswith(f"{REJECTS}/")), None)


def commit_shard(
    output: Location,
    first: int,
    last: int,
    data: pa.Table,
    rejects: pa.Table,
    seconds: Mapping[str, float] | None = None,
    writers: Mapping[str, int] | None = None,
) -> Commit:
    """Writes the plan rows first..last (inclusive): samples, rejected rows, and then the commit record.

    Doing it again replaces the files by equal ones, so a stage may be retried at any time.

    Args:
        output: the dataset folder or URI.
        first: the smallest plan index of the shard.
        last: the largest plan index of the shard.
        data: the samples. If there is a column `index`, the shard settles the rows named there and in the
            rejects; otherwise all of first..last.
        rejects: the rows that became no sample, in `reject_schema()`.
        seconds: what the stages with a model took, by stage.
        writers: rows by who wrote their text, if a language model was asked.

    Raises:
        ValueError: a plan row occurs twice, or lies outside first..last.
    """
    fs, root = filesystem(output)
    span = f"{first:08d}-{last:08d}"
    indices = _indices(first, last, data, rejects)
    files: dict[str, dict[str, str | int]] = {}
    tables = {f"{DATA}/train-{span}.parquet": data, f"{REJECTS}/rejects-{span}.parquet": rejects}
    for name, table in tables.items():
        if table.num_rows:
            files[name] = _write(fs, f"{root}/{name}", table)
    commit = Commit(
        first,
        last,
        rows=data.num_rows,
        rejects=rejects.num_rows,
        reasons=_counts(rejects, "reason"),
        labels=_label_counts(data),
        decisions=_counts(data, "decision"),
        files=files,
        committed_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        indices=indices,
        seconds=dict(seconds or {}),
        unguided=sum(skipped > 0 for skipped in _values(data, "guidance_skipped")),
        writers=dict(writers or {}),
    )
    write_bytes(fs, f"{root}/{commit.record}", commit.to_json().encode())
    return commit


def read_commits(output: Location) -> list[Commit]:
    """Returns all commits in plan order: the dataset is what they name, whatever else lies in the folder.

    Raises:
        InputError: a record is damaged.
    """
    commits, damaged = survey_commits(output)
    if damaged:
        raise InputError(f"damaged commit record: {', '.join(damaged[:3])}; run: synfer repair {output}")
    return commits


def survey_commits(output: Location) -> tuple[list[Commit], list[str]]:
    """Returns the commits in plan order, and the names of records that cannot be trusted."""
    fs, root = filesystem(output)
    paths = _records(output)
    commits, damaged = [], []
    for path, text in zip(paths, read_files(fs, paths)):
        try:
            commits.append(Commit.from_json(text))
        except (ValueError, TypeError, KeyError):
            damaged.append(path[len(root) + 1 :])
    return sorted(commits, key=lambda commit: commit.first), damaged


def any_commit(output: Location) -> bool:
    """Whether anything is committed."""
    return bool(_records(output))


def label_counts(commits: Iterable[Commit]) -> dict[str, int]:
    """Returns the number of rows by calibrated expression."""
    counts: Counter[str] = Counter()
    for commit in commits:
        for labels in commit.labels.values():
            counts.update(labels)
    return dict(counts)


def done_indices(output: Location) -> set[int]:
    """Returns the plan rows that are written or rejected, and need no work any more."""
    return {index for commit in read_commits(output) for index in commit.settled}


def find_orphans(output: Location, commits: Iterable[Commit] | None = None) -> list[str]:
    """Returns the names, below the output, of shard files that no commit names and of unfinished files."""
    fs, root = filesystem(output)
    commits = read_commits(output) if commits is None else commits
    kept = {name for commit in commits for name in commit.files}
    names = [path[len(root) + 1 :] for path in list_files(fs, root)]
    return [
        name
        for name in names
        if name.endswith(UNFINISHED) or (name.startswith((f"{DATA}/", f"{REJECTS}/")) and name not in kept)
    ]


def remove_orphans(output: Location, commits: Iterable[Commit] | None = None) -> list[str]:
    """Deletes what `find_orphans` finds and returns it. Call it before writers start, never beside one.

    With the `commits` that the caller plans by, a shard that a late writer commits after they were read is
    made again, rather than lost between the two.
    """
    fs, root = filesystem(output)
    orphans = find_orphans(output, commits)
    for name in orphans:
        fs.rm_file(f"{root}/{name}")
    return orphans


def _records(output: Location) -> list[str]:
    fs, root = filesystem(output)
    return [path for path in list_files(fs, f"{root}/{COMMITS}") if path.endswith(".json")]


def parquet_options(schema: pa.Schema) -> dict[str, Any]:
    """Returns how samples are encoded: image bytes are compressed already, and get no codec or statistics."""
    plain = [leaf for leaf in _leaves(schema) if leaf != "image.bytes"]
    return {
        "row_group_size": ROW_GROUP,
        "compression": {leaf: "zstd" for leaf in plain} | {"image.bytes": "none"},
        "use_dictionary": plain,
        "write_statistics": plain,
        "write_page_index": True,
        "use_content_defined_chunking": True,
    }


def _write(fs: AbstractFileSystem, path: str, table: pa.Table) -> dict[str, str | int]:
    with whole_file(fs, path) as file, hashing(file) as hashed:
        pq.write_table(table, hashed, **parquet_options(table.schema))
    return {"sha256": hashed.sha256.hexdigest(), "bytes": hashed.size}


@cache
def _leaves(schema: pa.Schema) -> list[str]:
    """Returns the paths of the Parquet columns: `image.bytes`, `action_units.list.element`, `seed`."""
    buffer = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(), buffer)
    parquet = pq.ParquetFile(pa.BufferReader(buffer.getvalue())).schema
    return [parquet.column(i).path for i in range(len(parquet))]


def _indices(first: int, last: int, data: pa.Table, rejects: pa.Table) -> list[int] | None:
    if "index" not in data.column_names:
        return None
    indices = sorted(data["index"].to_pylist() + rejects["index"].to_pylist())
    if len(set(indices)) < len(indices):
        raise ValueError(f"shard {first}-{last}: a plan row occurs twice in {indices}")
    if indices and not first <= indices[0] <= indices[-1] <= last:
        raise ValueError(f"shard {first}-{last} holds plan rows {indices[0]}..{indices[-1]}")
    return None if indices == list(range(first, last + 1)) else indices


def _counts(table: pa.Table, column: str) -> dict[str, int]:
    return dict(Counter(table[column].to_pylist())) if column in table.column_names else {}


def _values(table: pa.Table, column: str) -> list[Any]:
    return table[column].drop_null().to_pylist() if column in table.column_names else []


def _label_counts(data: pa.Table) -> dict[str, dict[str, int]]:
    if "label" not in data.column_names:
        return {}
    labels = data["label"].to_pylist()
    assigned = data["assigned_label"].to_pylist() if "assigned_label" in data.column_names else labels
    counts: dict[str, dict[str, int]] = {}
    for (before, after), rows in Counter(zip(assigned, labels)).items():
        if before is not None and after is not None:
            counts.setdefault(EXPRESSIONS[before], {})[EXPRESSIONS[after]] = rows
    return counts
