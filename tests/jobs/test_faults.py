"""What a run survives: whatever happens, in the end every planned row is there once, with the same bytes."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import psutil
import pyarrow.parquet as pq
import pytest

from synfer_ray.cli import main
from synfer_ray.config import GenerateConfig, LayoutConfig, PoolConfig, SamplingConfig, VoteConfig
from synfer_ray.errors import InputError
from synfer_ray.pipeline import generate
from synfer_ray.stall import SILENCE_SECONDS
from synfer_ray.storage.manifest import claim_output, read_manifest, write_manifest
from synfer_ray.storage.verify import verify
from tests.fake_dataset import fill
from tests.jobs.faulty import MOMENTS, POISON, SILENT, DeadlyGenerator, NaNGenerator
from tests.tiny_bundle import save_tiny_bundle

ROWS = 32
SYNFER = "from synfer_ray.cli import main; main()"


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    return GenerateConfig(
        output=str(folder / "reference"),
        num_images=ROWS,
        bundle=str(save_tiny_bundle(folder / "tiny")),
        sampling=SamplingConfig(num_inference_steps=2),
        vote=VoteConfig(on_mismatch="keep_soft"),
        batch_size=4,
        shard_rows=8,
        generator_pool=PoolConfig(min_actors=1),
        overlays=0,
    )


@pytest.fixture(scope="module")
def reference(config, two_cpus):
    """The rows of an uninterrupted run."""
    generate(config)
    return rows_of(config.output)


def rows_of(output) -> dict[int, dict]:
    """All rows that a raw glob finds; none may be there twice."""
    files = sorted([*Path(output).glob("data/*.parquet"), *Path(output).glob("rejects/*.parquet")])
    rows = [row for file in files for row in pq.read_table(file).to_pylist()]
    assert max(Counter(row["sample_id"] for row in rows).values()) == 1
    return {row["index"]: row for row in rows}


def assert_whole(output, planned: int, rows: dict[int, dict]) -> None:
    """Every planned row is there once, by manifest and by glob, and is what it should be."""
    manifest = read_manifest(output)
    assert manifest.planned_rows == planned == manifest.totals["rows"] + manifest.totals["rejects"]
    found = rows_of(output)
    assert sorted(found) == list(range(planned))
    assert {index: row for index, row in found.items() if row != rows.get(index)} == {}
    assert verify(output) == []
    assert not list(Path(output).glob("attempts/*")) and not (Path(output) / "lease.json").exists()


def settings(config: GenerateConfig) -> list[str]:
    """The settings on a command line."""
    return [
        f"output={config.output}",
        f"num_images={config.num_images}",
        f"bundle={config.bundle}",
        "sampling.num_inference_steps=2",
        "vote.on_mismatch=keep_soft",
        "batch_size=4",
        "shard_rows=8",
        "overlays=0",
        "generator_pool.min_actors=1",
    ]


def commits_in(output: Path) -> int:
    return len(list(output.glob("commits/*.json")))


def start(config: GenerateConfig, moment: str = "") -> subprocess.Popen:
    """Starts the job in a process of its own, on the Ray of this one."""
    import ray

    environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    job = ["-m", "tests.jobs.faulty", moment] if moment else ["-c", SYNFER, "generate"]
    command = [sys.executable, *job, *settings(config)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def test_a_row_that_is_not_finite_is_rejected_and_its_neighbours_stay(config, reference, tmp_path):
    output = str(tmp_path / "out")
    generate(replace(config, output=output), generator=NaNGenerator)
    found = rows_of(output)
    assert (found[POISON]["stage"], found[POISON]["reason"]) == ("generate", "not_finite")
    assert "label" not in found[POISON] and found[POISON]["label_probs"] is None
    assert_whole(output, ROWS, reference | {POISON: found[POISON]})


@pytest.mark.slow
def test_a_run_that_falls_silent_starts_again_with_what_is_missing(config, reference, tmp_path):
    silent = replace(config, output=str(tmp_path / "out"))
    done = subprocess.run(
        [sys.executable, "-m", "tests.jobs.faulty", SILENT, *settings(silent)],
        env=os.environ | {SILENCE_SECONDS: "5"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"no shard for \d+ seconds: starting again with what is missing", done.stdout)
    assert_whole(silent.output, ROWS, reference)


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
    generate(whole)
    killed = replace(
        whole, output=str(tmp_path / "out"), generator_pool=PoolConfig(min_actors=2, num_cpus=0.5)
    )
    with killer(20) as kills:
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
def killer(times: int):
    """Kills a random generator actor of this process's Ray at random moments, meanwhile."""
    kills, ended, rng = [], threading.Event(), random.Random(1)

    def kill():
        while len(kills) < times and not ended.wait(rng.uniform(1, 10)):
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
    rng, rows = random.Random(2), 12 * ROWS
    whole = replace(config, num_images=rows, output=str(tmp_path / "whole"))
    generate(whole)
    interrupted = replace(whole, output=str(tmp_path / "out"))
    kills = [0]
    for _ in range(6):  # in starting up, or after one or two commits
        process, more = start(interrupted), rng.randrange(3)
        while process.poll() is None and commits_in(tmp_path / "out") < kills[-1] + more:
            time.sleep(0.05)
        time.sleep(rng.uniform(0, 1))
        assert process.poll() is None
        process.kill()
        process.communicate()
        kills.append(commits_in(tmp_path / "out"))
    print("commits at each kill:", kills[1:])
    assert 2 < kills[-1] < rows // 8
    generate(interrupted)
    assert_whole(interrupted.output, rows, rows_of(whole.output))


def test_a_second_driver_is_refused_and_the_first_one_finishes(config, reference, tmp_path):
    first = replace(config, output=str(tmp_path / "out"))
    process = start(first)
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "out" / "lease.json").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        second = subprocess.run(
            [sys.executable, "-c", SYNFER, "generate", *settings(first)],
            capture_output=True,
            text=True,
        )
        assert second.returncode == 2
        assert f"written by process {process.pid}" in second.stderr and len(second.stderr.splitlines()) == 1
    finally:
        shown = process.communicate(timeout=300)[0]
    assert process.returncode == 0, shown
    assert_whole(first.output, ROWS, reference)


@contextmanager
def small_disk(folder: Path, kilobytes: int):
    """A file system with little room."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs the right to mount a file system")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.slow
def test_a_full_disk_ends_the_run_in_one_line_and_with_more_room_it_continues(config, reference, tmp_path):
    with small_disk(tmp_path / "disk", 160):
        full = replace(config, output=str(tmp_path / "disk" / "out"))
        process = start(full)
        shown = process.communicate(timeout=300)[0]
        assert process.returncode == 1, shown
        assert "No space left on device" in shown.splitlines()[-1] and "Traceback" not in shown
        committed = list(Path(full.output).glob("commits/*.json"))
        assert len(committed) < ROWS // 8 and not list(Path(full.output).rglob("*.tmp"))
        subprocess.run(["mount", "-o", "remount,size=64m", str(tmp_path / "disk")], check=True)
        generate(full)
        assert_whole(full.output, ROWS, reference)


def test_a_read_only_output_ends_the_run_in_one_line(config, reference, tmp_path):
    with small_disk(tmp_path / "disk", 1000):
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path / "disk")], check=True)
        process = start(replace(config, output=str(tmp_path / "disk" / "out")))
        shown = process.communicate(timeout=300)[0]
    assert process.returncode == 1, shown
    assert "Read-only file system" in shown and len(shown.splitlines()) == 1


@pytest.mark.slow
def test_a_corrupt_shard_of_the_layout_pool_is_named(config, reference, tmp_path):
    pool = tmp_path / "pool"
    claim_output(pool, {"made": "up"}, planned_rows=50)
    fill(pool, shards=2, rows=25, size=32)
    write_manifest(pool)
    for shard in (pool / "data").iterdir():
        content = shard.read_bytes()
        shard.write_bytes(content[: len(content) // 2])
    layout = LayoutConfig(mode="partial_noise", pool=str(pool))
    with pytest.raises(InputError, match=r"cannot read FEText shard .*train-"):
        generate(replace(config, output=str(tmp_path / "out"), layout=layout))
    assert not list((tmp_path / "out").glob("data/*"))


def test_repair_makes_exactly_the_damaged_rows_again(config, reference, tmp_path, capsys):
    output = tmp_path / "out"
    shutil.copytree(config.output, output)
    files = {path.name: path for path in sorted((output / "data").iterdir())}
    first, second, third, _ = files.values()
    content = bytearray(first.read_bytes())
    content[len(content) // 2] ^= 1
    first.write_bytes(content)
    second.unlink()
    record = output / "commits" / "00000016-00000023.json"
    record.write_text(record.read_text().replace('"rows": 8', '"rows": 9'))
    (output / "data" / "train-strange.parquet").write_bytes(third.read_bytes())
    with pytest.raises(SystemExit) as end:
        main(["verify", str(output)])
    shown = capsys.readouterr().out
    assert end.value.code == 1
    for name in (first.name, second.name, record.name, "train-strange.parquet"):
        assert name in shown
    untouched = files.popitem()[1]
    before = untouched.stat().st_mtime_ns
    main(["repair", str(output)])
    assert "is whole: 32 images" in capsys.readouterr().out
    assert untouched.stat().st_mtime_ns == before
    assert_whole(output, ROWS, reference)
