"""Bad rows, silence, disks, damage: in the end every planned row is there once, with the same bytes."""

import os
import re
import shutil
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from synfer_ray.cli import main
from synfer_ray.config import LayoutConfig
from synfer_ray.errors import InputError
from synfer_ray.pipeline import generate
from synfer_ray.stall import SILENCE_SECONDS
from synfer_ray.storage.manifest import claim_output, write_manifest
from tests.fake_dataset import fill
from tests.jobs.faulty import POISON, SILENT, NaNGenerator
from tests.jobs.runs import ROWS, SYNFER, assert_whole, rows_of, settings, start


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
        env=os.environ | {SILENCE_SECONDS: "20"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"no shard for \d+ seconds: starting again with what is missing", done.stdout)
    assert_whole(silent.output, ROWS, reference)


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
