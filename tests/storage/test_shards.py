import signal
import subprocess
import sys
import uuid
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from synfer_ray.errors import InputError
from synfer_ray.storage import locations, shards
from synfer_ray.storage.locations import filesystem, list_files
from synfer_ray.storage.schema import reject_schema
from synfer_ray.storage.shards import (
    commit_shard,
    done_indices,
    read_commits,
    remove_orphans,
    survey_commits,
)
from synfer_ray.taxonomy.expressions import EXPRESSIONS
from tests.fake_dataset import REASONS, sample, tables


@pytest.fixture(params=["local", "memory"])
def output(request, tmp_path):
    return str(tmp_path / "out") if request.param == "local" else f"memory://{uuid.uuid4().hex}/out"


def names(output):
    fs, root = filesystem(output)
    return [path.removeprefix(f"{root}/") for path in list_files(fs, root)]


def ids(output, folder="data"):
    """All sample ids that a raw glob of the folder finds."""
    fs, root = filesystem(output)
    return [
        name
        for path in list_files(fs, f"{root}/{folder}")
        for name in pq.read_table(pa.BufferReader(fs.cat_file(path)))["sample_id"].to_pylist()
    ]


def test_a_shard_settles_every_row(output):
    commit_shard(output, 0, 9, *tables(range(10), rejected=[4, 9]))
    assert names(output) == [
        "commits/00000000-00000009.json",
        "data/train-00000000-00000009.parquet",
        "rejects/rejects-00000000-00000009.parquet",
    ]
    (commit,) = read_commits(output)
    assert (commit.rows, commit.rejects) == (8, 2)
    assert commit.reasons == {REASONS[1]: 1, REASONS[0]: 1}
    assert commit.indices is None
    assert done_indices(output) == set(range(10))
    assert ids(output) == [f"fake-{index:08d}" for index in range(10) if index not in (4, 9)]
    assert ids(output, "rejects") == ["fake-00000004", "fake-00000009"]


def test_the_record_counts_labels_by_assigned_and_calibrated_name(output):
    commit = commit_shard(output, 0, 29, *tables(range(30)))
    expected: dict[str, dict[str, int]] = {}
    for row in map(sample, range(30)):
        after = expected.setdefault(EXPRESSIONS[row["assigned_label"]], {})
        after[EXPRESSIONS[row["label"]]] = after.get(EXPRESSIONS[row["label"]], 0) + 1
    assert commit.labels == expected
    assert commit.decisions == {"agree": 27, "relabel": 3}
    assert read_commits(output) == [commit]


def test_a_shard_of_scattered_rows_names_them(output):
    commit_shard(output, 3, 11, *tables([3, 7, 11], rejected=[7]))
    assert done_indices(output) == {3, 7, 11}


def test_a_table_without_index_settles_its_whole_range(output):
    data, rejects = tables(range(4), rejected=[2])
    commit_shard(output, 0, 3, data.drop_columns("index"), rejects)
    assert done_indices(output) == {0, 1, 2, 3}


def test_a_shard_without_samples_writes_no_data_file(output):
    commit_shard(output, 0, 2, *tables([], rejected=[0, 1, 2]))
    assert not [name for name in names(output) if name.startswith("data/")]
    assert done_indices(output) == {0, 1, 2}


@pytest.mark.parametrize("indices", [[0, 1, 1], [0, 5]])
def test_a_row_twice_or_outside_is_refused(tmp_path, indices):
    with pytest.raises(ValueError, match="plan row"):
        commit_shard(tmp_path, 0, 2, *tables(indices))
    assert names(tmp_path) == []


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sets(st.integers(0, 10**6), min_size=1, max_size=30), min_size=1, max_size=5))
def test_done_is_the_union_of_what_was_committed(groups):
    output = f"memory://{uuid.uuid4().hex}"
    empty = reject_schema().empty_table()
    for group in groups:
        data = pa.table({"index": sorted(group), "sample_id": [str(index) for index in sorted(group)]})
        commit_shard(output, min(group), max(group), data, empty)
    spans = {(min(group), max(group)): group for group in groups}
    assert done_indices(output) == set().union(*spans.values())


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_failure_at_each_write_leaves_no_trace_after_the_retry(output, monkeypatch, step):
    commit_shard(output, 10, 14, *tables(range(10, 15)))
    writes = iter(range(3))
    real = locations.whole_file

    @contextmanager
    def failing(fs, path):
        with real(fs, path) as file:
            yield file
            if next(writes) == step:
                raise OSError("connection reset")

    with monkeypatch.context() as patched:
        patched.setattr(locations, "whole_file", failing)  # as write_bytes calls it
        patched.setattr(shards, "whole_file", failing)
        with pytest.raises(OSError, match="connection reset"):
            commit_shard(output, 0, 9, *tables(range(10), rejected=[5]))

    assert done_indices(output) == set(range(10, 15))
    assert len(remove_orphans(output)) == step
    assert len(ids(output)) == 5
    commit_shard(output, 0, 9, *tables(range(10), rejected=[5]))
    assert remove_orphans(output) == []
    assert sorted(ids(output) + ids(output, "rejects")) == [f"fake-{index:08d}" for index in range(15)]


KILLED_AT_RENAME = """
import os, signal, sys
sys.path.insert(0, {root!r})
from tests.fake_dataset import tables
from synfer_ray.storage.shards import commit_shard

real, calls = os.replace, iter(range(3))
def replace(source, target):
    if next(calls) == {step}:
        os.kill(os.getpid(), signal.SIGKILL)
    real(source, target)
os.replace = replace
commit_shard({output!r}, 0, 9, *tables(range(10), rejected=[5]))
"""


@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_process_killed_before_each_rename_leaves_only_orphans(tmp_path, step):
    root = str(Path(__file__).resolve().parents[2])
    script = KILLED_AT_RENAME.format(root=root, step=step, output=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert done_indices(tmp_path) == set()
    orphans = remove_orphans(tmp_path)
    assert len(orphans) == step + 1
    assert [name for name in orphans if name.endswith(".tmp")]
    assert names(tmp_path) == []


FULL_DISK = """
import resource, sys
sys.path.insert(0, {root!r})
from tests.fake_dataset import tables
from synfer_ray.storage.shards import commit_shard

resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))
try:
    commit_shard({output!r}, 0, 9, *tables(range(10), rejected=[5]))
except OSError as error:
    print(error)
"""


def test_a_disk_without_room_leaves_nothing_behind(tmp_path):
    root = str(Path(__file__).resolve().parents[2])
    script = FULL_DISK.format(root=root, output=str(tmp_path))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "File too large" in done.stdout, done.stderr
    assert names(tmp_path) == []
    commit_shard(tmp_path, 0, 9, *tables(range(10), rejected=[5]))
    assert done_indices(tmp_path) == set(range(10))


def test_an_altered_record_is_not_trusted(output):
    fs, root = filesystem(output)
    commit = commit_shard(output, 0, 2, *tables(range(3)))
    text = fs.cat_file(f"{root}/{commit.record}")
    fs.pipe_file(f"{root}/{commit.record}", text.replace(b'"rows": 3', b'"rows": 2'))
    with pytest.raises(InputError, match=r"00000000-00000002\.json; run: synfer repair"):
        read_commits(output)
    assert survey_commits(output) == ([], [commit.record])


def test_a_shard_committed_after_the_plan_was_made_is_no_reason_to_keep_its_files(output):
    """A late writer: its files are orphans to whoever planned without them, and will be made again."""
    commit_shard(output, 0, 9, *tables(range(10)))
    planned_by = read_commits(output)
    commit_shard(output, 10, 19, *tables(range(10, 20)))
    assert remove_orphans(output, planned_by) == ["data/train-00000010-00000019.parquet"]
    before = commit_shard(output, 10, 19, *tables(range(10, 20)))
    assert read_commits(output)[1] == before and len(ids(output)) == 20


def test_committing_again_gives_the_same_bytes(output):
    before = commit_shard(output, 0, 9, *tables(range(10), rejected=[5]))
    after = commit_shard(output, 0, 9, *tables(range(10), rejected=[5]))
    assert before.files == after.files
    assert len(names(output)) == 3


def test_images_are_stored_as_they_are_in_small_row_groups(tmp_path):
    commit_shard(tmp_path, 0, 249, *tables(range(250), size=8))
    file = pq.ParquetFile(tmp_path / "data" / "train-00000000-00000249.parquet")
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    assert [group.num_rows for group in groups] == [100, 100, 50]
    columns = {groups[0].column(i).path_in_schema: groups[0].column(i) for i in range(groups[0].num_columns)}
    image = columns.pop("image.bytes")
    assert (image.compression, image.has_dictionary_page, image.is_stats_set) == (
        "UNCOMPRESSED",
        False,
        False,
    )
    assert {column.compression for column in columns.values()} == {"ZSTD"}
    assert columns["seed"].has_column_index


def test_a_damaged_record_is_named(tmp_path):
    commit_shard(tmp_path, 0, 2, *tables(range(3)))
    record = tmp_path / "commits" / "00000000-00000002.json"
    record.write_bytes(record.read_bytes()[:50])
    with pytest.raises(InputError, match=r"00000000-00000002\.json"):
        read_commits(tmp_path)
