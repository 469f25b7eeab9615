"""Shards: the unit of work that is either committed, with every row accounted for, or does not exist.

A shard becomes part of the dataset when its commit record is in place. The record is written last and holds
the hash of every file, so that a crash at any moment leaves a whole shard or files that nobody refers to.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq

from synfer_ray.errors import InputError
from synfer_ray.storage.locations import UNFINISHED, Location, filesystem, list_files, read_files, write_bytes
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


def commit_shard(output: Location, first: int, last: int, data: pa.Table, rejects: pa.Table) -> Commit:
    """Writes the plan rows first..last (inclusive): samples, rejected rows, and then the commit record.

    Doing it again replaces the files by equal ones, so a stage may be retried at any time.

    Args:
        output: the dataset folder or URI.
        first: the smallest plan index of the shard.
        last: the largest plan index of the shard.
        data: the samples. If there is a column `index`, the shard settles the rows named there and in the
            rejects; otherwise all of first..last.
        rejects: the rows that became no sample, in `reject_schema()`.

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
            parquet = _parquet(table)
            write_bytes(fs, f"{root}/{name}", parquet)
            files[name] = {"sha256": hashlib.sha256(parquet).hexdigest(), "bytes": len(parquet)}
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
    )
    write_bytes(fs, f"{root}/{commit.record}", json.dumps(asdict(commit)).encode())
    return commit


def read_commits(output: Location) -> list[Commit]:
    """Returns all commits in plan order: the dataset is what they name, whatever else lies in the folder.

    Raises:
        InputError: a record is damaged.
    """
    fs, root = filesystem(output)
    paths = [path for path in list_files(fs, f"{root}/{COMMITS}") if path.endswith(".json")]
    commits = [_commit(path, text) for path, text in zip(paths, read_files(fs, paths))]
    return sorted(commits, key=lambda commit: commit.first)


def done_indices(output: Location) -> set[int]:
    """Returns the plan rows that are written or rejected, and need no work any more."""
    return {index for commit in read_commits(output) for index in commit.settled}


def find_orphans(output: Location) -> list[str]:
    """Returns the names, below the output, of shard files that no commit names and of unfinished files."""
    fs, root = filesystem(output)
    kept = {name for commit in read_commits(output) for name in commit.files}
    names = [path[len(root) + 1 :] for path in list_files(fs, root)]
    return [
        name
        for name in names
        if name.endswith(UNFINISHED) or (name.startswith((f"{DATA}/", f"{REJECTS}/")) and name not in kept)
    ]


def remove_orphans(output: Location) -> list[str]:
    """Deletes what `find_orphans` finds and returns it. Call it before writers start, never beside one."""
    fs, root = filesystem(output)
    orphans = find_orphans(output)
    for name in orphans:
        fs.rm_file(f"{root}/{name}")
    return orphans


def _commit(path: str, text: bytes) -> Commit:
    try:
        return Commit(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise InputError(f"damaged commit record: {path}: {error}") from error


def _parquet(table: pa.Table) -> bytes:
    """Encodes a table; image bytes are compressed already and get no codec, dictionary or statistics."""
    plain = [leaf for leaf in _leaves(table.schema) if leaf != "image.bytes"]
    buffer = pa.BufferOutputStream()
    pq.write_table(
        table,
        buffer,
        row_group_size=ROW_GROUP,
        compression={leaf: "zstd" for leaf in plain} | {"image.bytes": "none"},
        use_dictionary=plain,
        write_statistics=plain,
        write_page_index=True,
        use_content_defined_chunking=True,
    )
    return buffer.getvalue().to_pybytes()


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
