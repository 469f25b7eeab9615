import json
import os
import subprocess
import sys
import threading
import time
import uuid
from dataclasses import asdict

import psutil
import pytest

from synfer_ray.errors import InputError, RunFailed
from synfer_ray.storage import lease
from synfer_ray.storage.lease import Holder, hold_lease, read_lease, this_host
from synfer_ray.storage.locations import create_bytes, filesystem, write_bytes

BEAT = 0.05


@pytest.fixture(params=["local", "memory"])
def output(request, tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "BEAT", BEAT)
    return str(tmp_path / "out") if request.param == "local" else f"memory://{uuid.uuid4().hex}/out"


def leave(output, **holder) -> Holder:
    """Writes the lease of somebody else."""
    other = Holder(owner="somebody", **holder)
    fs, root = filesystem(output)
    write_bytes(fs, f"{root}/lease.json", json.dumps(asdict(other)).encode())
    return other


def test_it_beats_while_it_is_held_and_is_gone_afterwards(output):
    with hold_lease(output):
        first = read_lease(output)
        assert (first.pid, first.is_here, first.is_running) == (os.getpid(), True, True)
        time.sleep(5 * BEAT)
        assert read_lease(output).beat > first.beat
    assert read_lease(output) is None
    with pytest.raises(ZeroDivisionError), hold_lease(output):
        raise ZeroDivisionError
    assert read_lease(output) is None


def test_a_second_driver_of_this_machine_is_refused_at_once(output):
    with hold_lease(output):
        started = time.monotonic()
        with pytest.raises(InputError, match=f"written by process {os.getpid()} on"), hold_lease(output):
            pass
        assert time.monotonic() - started < 5 * BEAT
        assert read_lease(output).pid == os.getpid()


def test_a_driver_of_another_machine_is_refused_as_long_as_the_other_one_beats(output):
    ended = threading.Event()

    def beat():
        while not ended.wait(BEAT / 2):
            leave(output, host="far/away", pid=1, beat=time.monotonic_ns())

    leave(output, host="far/away", pid=1)
    other = threading.Thread(target=beat)
    other.start()
    try:
        with pytest.raises(InputError, match="written by process 1 on far:"), hold_lease(output):
            pass
    finally:
        ended.set()
        other.join()


def test_a_lease_that_nobody_changes_is_free_after_the_missed_beats(output):
    leave(output, host="far/away", pid=1, beat_at="2999-01-01T00:00:00+00:00")  # clocks do not count
    started = time.monotonic()
    with hold_lease(output):
        assert time.monotonic() - started >= lease.MISSED * BEAT
        assert read_lease(output).pid == os.getpid()


@pytest.mark.parametrize("content", [b"", b"[]", b'{"owner": 1', b'{"pid": 3}'])
def test_what_cannot_be_read_as_a_lease_is_outwaited_too(output, content):
    fs, root = filesystem(output)
    write_bytes(fs, f"{root}/lease.json", content)
    with hold_lease(output):
        assert read_lease(output).pid == os.getpid()


def test_the_lease_of_a_dead_process_of_this_machine_is_free_at_once(output, monkeypatch):
    monkeypatch.setattr(lease, "BEAT", 60)
    process = subprocess.Popen([sys.executable, "-c", "pass"])
    started = psutil.Process(process.pid).create_time()
    process.wait()
    leave(output, host=this_host(), pid=process.pid, started=started)
    with hold_lease(output):
        assert read_lease(output).pid == os.getpid()
    leave(output, host=this_host(), pid=os.getpid(), started=started - 1000)  # the pid was given again
    with hold_lease(output):
        assert read_lease(output).owner != "somebody"


def test_whoever_slept_too_long_stops_and_leaves_the_lease_to_its_successor(output):
    with pytest.raises(RunFailed, match="taken over by process 7 on far"), hold_lease(output):
        leave(output, host="far/away", pid=7)
        time.sleep(50 * BEAT)
        pytest.fail("went on")
    assert read_lease(output).pid == 7


def test_a_store_that_fails_for_a_while_does_not_end_the_run(output, monkeypatch):
    def fail(*_):
        raise OSError("slow down")

    with hold_lease(output):
        monkeypatch.setattr(lease, "write_bytes", fail)
        time.sleep(4 * BEAT)
        monkeypatch.undo()
        assert read_lease(output).pid == os.getpid()


def test_the_folder_of_somebody_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(InputError, match=r"thesis\.tex"), hold_lease(tmp_path):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_of_many_that_create_a_file_one_succeeds(output):
    fs, root = filesystem(output)
    winners, barrier = [], threading.Barrier(8)

    def race(number):
        barrier.wait()
        try:
            create_bytes(fs, f"{root}/file", str(number).encode())
            winners.append(number)
        except FileExistsError:
            pass

    threads = [threading.Thread(target=race, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [fs.cat_file(f"{root}/file")] == [str(number).encode() for number in winners]
