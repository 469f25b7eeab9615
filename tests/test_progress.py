import time
from dataclasses import replace

import pytest

from synfer_ray import progress
from synfer_ray.progress import LINE_SECONDS, Progress
from synfer_ray.storage.shards import read_commits
from tests.fake_dataset import fill


@pytest.fixture
def commits(tmp_path):
    fill(tmp_path, shards=3, rows=10)
    return [replace(commit, seconds={"generate": 4.0, "vote": 1.0}) for commit in read_commits(tmp_path)]


def test_the_pace_is_that_since_it_was_last_asked(commits, monkeypatch, two_cpus):
    clock = iter([0, 10, 20, 30])
    monkeypatch.setattr(progress, "time", type("Clock", (), {"monotonic": lambda: next(clock)}))
    counted = Progress("bucket/faces", settled=100, to_do=60, actors={"generate": 2})
    counted.add(commits[0])
    counted.add(commits[1])
    pace = counted.pace()
    assert (pace.settled, pace.planned, pace.per_second) == (120, 160, 2.0)
    assert pace.seconds_left == 40 * 10 / 20
    assert pace.busy == {"generate": 0.8, "vote": 0.2} and pace.actors == {"generate": 2}
    pace = counted.pace()
    assert (pace.per_second, pace.busy, pace.seconds_left) == (0, {}, 40)
    counted.add(commits[2])
    pace = counted.pace()
    assert (pace.settled, pace.per_second, pace.seconds_left) == (130, 1.0, 30.0)
    assert sum(pace.reasons.values()) == 6


def test_lines_come_at_their_time_and_at_the_end(commits, monkeypatch, capsys, two_cpus):
    monkeypatch.setenv(LINE_SECONDS, "0.2")
    with Progress("out", settled=0, to_do=30, actors={}) as counted:
        time.sleep(0.3)
        counted.add(commits[0])
        counted.add(commits[1])
        counted.add(commits[2])
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first.startswith("0/30 images (0.0 %), 0.00 images/s, 0 rejected")
    assert last.startswith("30/30 images (100.0 %)") and "ETA 0:00:00, 6 rejected (" in last


def test_prometheus_gets_what_the_commits_say(commits, two_cpus, monkeypatch):
    seen = []
    for kind, verb in (("Counter", "inc"), ("Gauge", "set"), ("Histogram", "observe")):
        monkeypatch.setattr(
            f"ray.util.metrics.{kind}.{verb}",
            lambda self, value=1.0, tags=None: seen.append(
                (self._name, value, (tags or {}) | self._default_tags)
            ),
        )
    counted = Progress("s3://bucket/faces/", settled=0, to_do=30, actors={"generate": 2})
    for commit in commits:
        counted.add(commit)
    counted.metrics.show(counted.pace())
    totals: dict[str, float] = {}
    for name, value, tags in seen:
        assert tags["run"] == "faces"
        totals[name] = totals.get(name, 0) + value
    assert totals["synfer_images"] == 24 and totals["synfer_rejects"] == 6 and totals["synfer_shards"] == 3
    assert totals["synfer_stage_seconds"] == 15 and totals["synfer_pool_actors"] == 2
    assert totals["synfer_settled_images"] == totals["synfer_planned_images"] == 30
    assert seen.count(("synfer_guidance_share", 1.0, {"run": "faces"})) == 3
