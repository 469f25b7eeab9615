"""Actors, drivers and nodes that are killed: in the end every planned row is there once, as it should be."""

import json
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import psutil
import pytest

from synfer_ray.config import PoolConfig
from synfer_ray.pipeline import generate
from tests.jobs.faulty import MOMENTS, POISON, DeadlyGenerator
from tests.jobs.runs import ROWS, assert_whole, commits_in, rows_of, settings, start


@pytest.mark.slow
def test_a_row_that_always_kills_its_actor_is_rejected_and_its_neighbours_survive(
    config, reference, tmp_path
):
    output = str(tmp_path / "out")
    generate(replace(config, output=output), generator=DeadlyGenerator)
    found = rows_of(output)
    assert (found[POISON]["stage"], found[POISON]["reason"]) == ("generate", "crashed")
    assert json.loads(found[POISON]["row"])["index"] == POISON
    assert_whole(output, ROWS, reference | {POISON: found[POISON]})


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_actors_killed_at_twenty_random_times(config, reference, tmp_path):
    rows = 60 * ROWS
    whole = replace(config, num_images=rows, output=str(tmp_path / "whole"))
    started = time.perf_counter()
    generate(whole)
    pause = (time.perf_counter() - started) / 20  # at this machine's pace all kills come while it works
    killed = replace(
        whole, output=str(tmp_path / "out"), generator_pool=PoolConfig(min_actors=2, num_cpus=0.5)
    )
    with killer(20, pause) as kills:
        generate(killed)
    assert len(kills) == 20
    assert_whole(killed.output, rows, rows_of(whole.output))


NODES = """
import os, sys, threading, time
from pathlib import Path
from unittest.mock import patch
from ray.cluster_utils import Cluster
from synfer_ray.cli import main

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
lost = cluster.add_node(num_cpus=2)
os.environ["RAY_ADDRESS"] = cluster.address
commits = Path(sys.argv[1].partition("=")[2]) / "commits"

def lose():
    while len(list(commits.glob("*.json"))) < 3:
        time.sleep(0.05)
    cluster.remove_node(lost, allow_graceful=False)
    print("lost a node after", len(list(commits.glob("*.json"))), "commits", flush=True)
    with patch("signal.signal"):  # a new node would set handlers, which this thread may not
        cluster.add_node(num_cpus=2)
    print("another node is there", flush=True)
    threading.Event().wait()  # a node ends with the thread that started it

threading.Thread(target=lose, daemon=True).start()
main(["generate", *sys.argv[1:], "generator_pool.min_actors=2"])
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_node_that_is_lost_takes_no_row_with_it(config, reference, tmp_path):
    rows = 8 * ROWS
    whole = replace(config, num_images=rows, output=str(tmp_path / "whole"))
    generate(whole)
    lossy = replace(whole, output=str(tmp_path / "out"))
    done = subprocess.run(
        [sys.executable, "-c", NODES, *settings(lossy)[:-1]], capture_output=True, text=True, timeout=600
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "another node is there" in done.stdout
    assert_whole(lossy.output, rows, rows_of(whole.output))


@contextmanager
def killer(times: int, pause: float):
    """Kills a random generator actor of this process's Ray every `pause` seconds or so, meanwhile."""
    kills, ended, rng = [], threading.Event(), random.Random(1)

    def kill():
        while len(kills) < times and not ended.wait(rng.uniform(0.2, 1.8) * pause):
            if actors := generators():
                victim = rng.choice(actors)
                kills.append(victim.pid)
                victim.kill()

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield kills
    finally:
        ended.set()
        thread.join()


def generators() -> list[psutil.Process]:
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            title = " ".join(process.cmdline())
        except psutil.Error:
            continue
        if title.startswith("ray::") and "ImageGenerator" in title:
            found.append(process)
    return found


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_driver_killed_at_each_moment_of_a_commit_is_continued(config, reference, tmp_path):
    interrupted = replace(config, output=str(tmp_path / "out"))
    for moment in MOMENTS:
        before = len(list((tmp_path / "out").glob("commits/*.json")))
        process = start(interrupted, moment)
        shown = process.communicate(timeout=300)[0]
        assert process.returncode == -signal.SIGKILL, shown
        after = len(list((tmp_path / "out").glob("commits/*.json")))
        print(f"killed {moment}: {after} commits")
        assert after == before + (moment == "after the record")
    generate(interrupted)  # takes over the lease of the dead driver at once
    assert_whole(interrupted.output, ROWS, reference)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_driver_killed_again_and_again_at_random_comes_to_its_end(config, reference, tmp_path):
    rng, rows = random.Random(2), 24 * ROWS
    whole = replace(config, num_images=rows, output=str(tmp_path / "whole"))
    generate(whole)
    interrupted = replace(whole, output=str(tmp_path / "out"))
    kills = [0]
    for _ in range(6):  # in starting up, or after one or two commits
        process, more = start(interrupted), rng.randrange(3)
        while process.poll() is None and commits_in(tmp_path / "out") < kills[-1] + more:
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 0.5))
        assert process.poll() is None
        process.kill()
        process.communicate()
        kills.append(commits_in(tmp_path / "out"))
    print("commits at each kill:", kills[1:])
    assert 2 < kills[-1] < rows // 8
    generate(interrupted)
    assert_whole(interrupted.output, rows, rows_of(whole.output))
