import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from synfer_ray.errors import InputError
from synfer_ray.reporting.pace import Pace
from synfer_ray.reporting.status import describe_status, pace_of
from synfer_ray.storage.lease import Holder, hold_lease, this_host
from synfer_ray.storage.manifest import claim_output
from synfer_ray.storage.shards import read_commits
from tests.fake_dataset import fill

START = datetime(2025, 1, 1, tzinfo=UTC)


@pytest.fixture
def output(tmp_path):
    claim_output(tmp_path, {"seed": 0}, planned_rows=100)
    fill(tmp_path, shards=4, rows=10)
    return tmp_path


def commits(output, *seconds):
    return [
        replace(commit, committed_at=(START + timedelta(seconds=s)).isoformat(), seconds={"generate": 8.0})
        for commit, s in zip(read_commits(output), seconds)
    ]


def test_pace_is_that_of_the_last_five_minutes(output):
    pace = pace_of(commits(output, 0, 1000, 1010, 1020), 100)  # the first one is a run of yesterday
    assert (pace.settled, pace.planned) == (40, 100)
    assert pace.per_second == pytest.approx(20 / 20)
    assert pace.seconds_left == pytest.approx(60)
    assert pace.busy == {"generate": pytest.approx(16 / 20)}
    assert pace.reasons == {"low_confidence": 3, "no_face": 3, "not_finite": 2}


def test_a_single_commit_has_no_pace(output):
    assert pace_of(commits(output, 5), 100).per_second is None
    assert pace_of([], 100) == Pace(0, 100)


def test_a_line_tells_all_there_is_to_tell():
    pace = Pace(1280, 20000, 8.125, 2304.2, {"black": 1, "mismatch": 30}, {"generate": 1.9}, {"generate": 2})
    assert str(pace) == (
        "1,280/20,000 images (6.4 %), 8.12 images/s, ETA 0:38:24, 31 rejected (mismatch 30, black 1), "
        "busy generate 1.9 of 2"
    )
    assert str(Pace(0, None)) == "0 images, 0 rejected"


def test_the_driver_is_told_from_its_lease(output):
    assert "no driver is at work; the same command continues" in describe_status(output)
    with hold_lease(output):
        assert f"driven by process {os.getpid()} on" in describe_status(output)
    dead = Holder("x", this_host(), pid=os.getpid(), started=1.0, beat_at=datetime.now(UTC).isoformat())
    (output / "lease.json").write_text(json.dumps(vars(dead)))
    assert "died; the same command continues" in describe_status(output)
    (output / "lease.json").write_text("?")
    assert "driven by another process" in describe_status(output)


def test_the_command_needs_neither_ray_nor_torch_nor_time(output):
    code = (
        "import sys; from synfer_ray.cli import main; main(['status', sys.argv[1]]);"
        "assert not {'ray', 'torch', 'diffusers'} & set(sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code, str(output)], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    first, second, _ = shown.stdout.splitlines()
    assert first.startswith(f"{output}: 40/100 images (40.0 %)") and "8 rejected" in first
    assert second.startswith("written 32 (") and "in 4 shards" in second


def test_what_is_no_dataset_is_refused(tmp_path):
    with pytest.raises(InputError, match="not a dataset folder"):
        describe_status(tmp_path)
