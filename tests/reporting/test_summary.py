from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from synfer_ray.reporting.summary import label_matrix, throughput
from synfer_ray.storage.shards import commit_shard
from tests.fake_dataset import sample, tables

START = datetime(2025, 1, 1, tzinfo=UTC)


@pytest.fixture
def commit(tmp_path):
    return commit_shard(tmp_path, 0, 9, *tables(range(10), rejected=[3]))


def at(commit, *seconds):
    return [replace(commit, committed_at=(START + timedelta(seconds=s)).isoformat()) for s in seconds]


def test_the_matrix_counts_assigned_against_calibrated(tmp_path):
    commits = [
        commit_shard(tmp_path, first, first + 19, *tables(range(first, first + 20))) for first in (0, 20)
    ]
    matrix = label_matrix(commits)
    expected = [[0] * 7 for _ in range(7)]
    for row in map(sample, range(40)):
        expected[row["assigned_label"]][row["label"]] += 1
    assert matrix.tolist() == expected


def test_the_rate_is_rows_after_the_first_commit_over_the_time_between(commit):
    pace = throughput(at(commit, 0, 4, 2, 8, 6))
    assert pace.rows_per_second == pytest.approx(40 / 8)
    assert pace.timeline == [(0, 10), (2, 20), (4, 30), (6, 40), (8, 50)]


def test_a_pause_between_two_runs_does_not_count(commit):
    seconds = [0, 2, 4, 6, 10_000, 10_002]
    assert throughput(at(commit, *seconds)).active_seconds == pytest.approx(8)


def test_actors_in_step_make_no_pauses(commit):
    slow = replace(commit, seconds={"generate": 24.0, "vote": 0.5})
    seconds = [0, 1, 25, 26, 50, 51, 75, 76, 10_000, 10_001]
    assert throughput(at(slow, *seconds)).active_seconds == pytest.approx(77)


@pytest.mark.parametrize("seconds", [[], [5], [5] * 6, [0, 1, 2, 3]])
def test_one_moment_or_a_few_give_no_rate(commit, seconds):
    assert throughput(at(commit, *seconds)) is None
