"""Is the dataset on disk what its commits say? Every byte is read."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pyarrow as pa
import pyarrow.parquet as pq

from synfer_ray.storage.locations import Location, filesystem
from synfer_ray.storage.manifest import MANIFEST, read_manifest, read_run
from synfer_ray.storage.shards import Commit, find_orphans, survey_commits

READERS = 8
"""Shards that are read at the same time: object stores answer slowly, but many requests at once."""


def verify(output: Location) -> list[str]:
    """Returns one sentence a problem, none if all is well.

    Looks for missing, truncated and altered files, files that no commit names, rows that occur twice, rows of
    the plan that are neither written nor rejected, and a manifest that is out of date.

    Raises:
        InputError: `output` is not a dataset folder.
    """
    planned = read_run(output)["planned_rows"]
    commits, damaged = survey_commits(output)
    problems, ids = [f"{name}: altered" for name in damaged], Counter[str]()
    for damage, found in _read_shards(output, commits):
        problems += damage
        ids.update(found)
    problems += [f"{name}: no commit names it" for name in find_orphans(output, commits)]
    problems += [f"sample_id {name} occurs {times} times" for name, times in ids.items() if times > 1]
    settled = _times_settled(commits)
    problems += [f"plan row {row} is settled {times} times" for row, times in settled.items() if times > 1]
    if planned is not None and len(settled) < planned:
        open_rows = planned - len(settled)
        problems.append(f"{open_rows} of {planned} planned rows are neither written nor rejected")
    return problems + _manifest_problems(output, commits)


def discard_damaged(output: Location) -> list[str]:
    """Removes damaged commit records, and those of shards with a damaged file or a row that occurs twice, so
    that the same job makes exactly these rows again; returns the names of the removed records.

    The manifest goes before them, so that nobody takes the folder for a finished one meanwhile.
    """
    fs, root = filesystem(output)
    commits, damaged = survey_commits(output)
    times = _times_settled(commits)
    for commit, (damage, _) in zip(commits, _read_shards(output, commits)):
        if damage or any(times[index] > 1 for index in commit.settled):
            damaged.append(commit.record)
    if damaged and fs.exists(f"{root}/{MANIFEST}"):
        fs.rm_file(f"{root}/{MANIFEST}")
    for name in damaged:
        fs.rm_file(f"{root}/{name}")
    return damaged


def _times_settled(commits: Sequence[Commit]) -> Counter[int]:
    return Counter(index for commit in commits for index in commit.settled)


def _read_shards(output: Location, commits: Sequence[Commit]) -> Iterator[tuple[list[str], list[str]]]:
    """Reads the files of all shards, some at a time, in the order of the commits."""
    with ThreadPoolExecutor(READERS) as pool:
        yield from pool.map(partial(_read_shard, output), commits)


def _read_shard(output: Location, commit: Commit) -> tuple[list[str], list[str]]:
    """Returns the damage of the files of one shard, and the sample ids of those that are whole."""
    fs, root = filesystem(output)
    damage, ids = [], []
    for name, file in commit.files.items():
        try:
            content = fs.cat_file(f"{root}/{name}")
        except FileNotFoundError:
            damage.append(f"{name}: missing")
            continue
        if len(content) != file["bytes"]:
            damage.append(f"{name}: {len(content)} bytes instead of {file['bytes']}")
        elif hashlib.sha256(content).hexdigest() != file["sha256"]:
            damage.append(f"{name}: altered, its sha256 is not the committed one")
        else:
            ids += pq.read_table(pa.BufferReader(content), columns=["sample_id"])["sample_id"].to_pylist()
    return damage, ids


def _manifest_problems(output: Location, commits: list[Commit]) -> list[str]:
    fs, root = filesystem(output)
    if not fs.exists(f"{root}/{MANIFEST}"):
        return [f"{MANIFEST}: missing"]
    listed = {shard.file: shard.sha256 for shard in read_manifest(output).shards}
    committed = {name: commit.files[name]["sha256"] for commit in commits if (name := commit.data_file)}
    if listed != committed:
        return [f"{MANIFEST}: out of date, lists {len(listed)} shards where {len(committed)} are committed"]
    return []
