"""Datasets in an object store that fails as real ones do: moto's S3 server behind a faulty proxy."""

import uuid

import pytest
import s3fs

from synfer_ray.errors import InputError
from synfer_ray.storage import locations
from synfer_ray.storage.lease import hold_lease, read_lease
from synfer_ray.storage.local_copy import CACHE, local_copy, pin
from synfer_ray.storage.locations import create_bytes, filesystem, is_storage_error, list_files, write_bytes
from synfer_ray.storage.manifest import claim_output, write_manifest
from synfer_ray.storage.shards import done_indices, remove_orphans
from synfer_ray.storage.verify import discard_damaged, verify
from tests.fake_dataset import fill
from tests.s3 import s3_server, sometimes


@pytest.fixture(scope="module")
def server():
    with s3_server() as proxy:
        yield proxy


@pytest.fixture
def proxy(server):
    yield server
    server.fault = lambda method, path: None


@pytest.fixture
def output(proxy):
    return f"s3://bucket/{uuid.uuid4().hex}"


def names(uri):
    fs, root = filesystem(uri)
    return [path.removeprefix(f"{root}/") for path in list_files(fs, root)]


def make(output, shards=3):
    with hold_lease(output):
        claim_output(output, {"seed": 0}, planned_rows=10 * shards)
        fill(output, shards=shards)
        write_manifest(output)


def test_a_dataset_survives_a_store_where_every_fifth_request_fails(proxy, output):
    proxy.fault = sometimes(0.2, ["500", "503", "reset", "late"])
    make(output)
    assert verify(output) == []
    assert {kind for _, _, kind in proxy.requests} >= {"500", "503", "reset", "late"}
    proxy.fault = lambda method, path: None
    assert done_indices(output) == set(range(30))
    assert len(names(output)) == 3 * 3 + 2  # data, rejects and record of each, run.json, manifest.json


def test_timeouts_are_tried_again(proxy, output, monkeypatch):
    monkeypatch.setattr(s3fs.S3FileSystem, "read_timeout", 1)
    s3fs.S3FileSystem.clear_instance_cache()
    slow = iter([True, False, True])
    proxy.fault = lambda method, path: "timeout" if method == "PUT" and next(slow, False) else None
    fs, root = filesystem(output)
    write_bytes(fs, f"{root}/file", b"x")
    write_bytes(fs, f"{root}/other", b"y")
    assert names(output) == ["file", "other"]
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.mark.parametrize("kind", ["500", "503", "reset"])
def test_retries_are_bounded_and_nothing_partial_is_visible(proxy, output, monkeypatch, kind):
    monkeypatch.setattr(locations, "S3_RETRIES", {"mode": "standard", "total_max_attempts": 2})
    fs, root = filesystem(output)
    proxy.fault = lambda method, path: kind if method == "PUT" else None
    before = len(proxy.requests)
    with pytest.raises(Exception) as failure:
        write_bytes(fs, f"{root}/file", bytes(1 << 20))
    assert is_storage_error(failure.value)
    assert 2 <= len(proxy.requests) - before <= 2 * locations.S3_ROUNDS
    assert names(output) == []


def test_what_is_forbidden_or_missing_is_not_tried_again(proxy, output):
    proxy.fault = lambda method, path: "403"
    before = len(proxy.requests)
    with pytest.raises(PermissionError, match=r"AccessDenied|Forbidden"), hold_lease(output):
        pass
    assert len(proxy.requests) - before <= 4
    proxy.fault = lambda method, path: None
    with pytest.raises(FileNotFoundError, match="bucket does not exist"), hold_lease("s3://nowhere/out"):
        pass


@pytest.mark.parametrize("kind", ["500", "reset"])
def test_a_broken_multipart_upload_leaves_nothing(proxy, output, monkeypatch, kind):
    monkeypatch.setattr(locations, "S3_RETRIES", {"mode": "standard", "total_max_attempts": 2})
    fs, root = filesystem(output)
    proxy.fault = lambda method, path: kind if "partNumber=2" in path else None
    with pytest.raises(Exception) as failure:
        write_bytes(fs, f"{root}/large", bytes(101 << 20))
    assert is_storage_error(failure.value)
    proxy.fault = lambda method, path: None
    assert names(output) == []
    assert fs.call_s3("list_multipart_uploads", Bucket="bucket").get("Uploads", []) == []
    assert ("DELETE", None) in {(method, kind) for method, path, kind in proxy.requests if "uploadId" in path}


def test_a_put_that_was_done_but_not_answered_does_not_refuse_itself(proxy, output):
    claim_output(output, {"seed": 0})
    first = iter([True])
    proxy.fault = lambda method, path: (
        "late" if "lease" in path and method == "PUT" and next(first, False) else None
    )
    with hold_lease(output):
        assert read_lease(output) is not None
    assert read_lease(output) is None


def test_one_lease_a_bucket(output):
    with hold_lease(output), pytest.raises(InputError, match="being written"), hold_lease(output):
        pass
    fs, root = filesystem(output)
    create_bytes(fs, f"{root}/file", b"1")
    with pytest.raises(FileExistsError):
        create_bytes(fs, f"{root}/file", b"2")
    assert fs.cat_file(f"{root}/file") == b"1"


def test_damage_is_found_and_only_it_is_discarded(output):
    make(output)
    fs, root = filesystem(output)
    data = next(name for name in names(output) if name.startswith("data/train-00000010"))
    fs.pipe_file(f"{root}/{data}", fs.cat_file(f"{root}/{data}")[:-7])
    (problem,) = verify(output)
    assert problem.startswith(data)
    assert discard_damaged(output) == ["commits/00000010-00000019.json"]
    assert remove_orphans(output) != []
    assert set(range(30)) - done_indices(output) == set(range(10, 20))


def test_a_remote_folder_is_copied_once_a_state(proxy, output, tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE, str(tmp_path))
    fs, root = filesystem(output)
    for name in ("unet/config.json", "vae/config.json"):
        fs.pipe_file(f"{root}/{name}", name.encode())
    pinned = pin(output)
    folder = local_copy(pinned)
    assert (folder / "unet" / "config.json").read_text() == "unet/config.json"
    proxy.requests.clear()
    assert local_copy(pinned) == local_copy(output) == folder
    assert not [path for method, path, _ in proxy.requests if method == "GET" and "config.json" in path]
    fs.pipe_file(f"{root}/unet/config.json", b"changed")
    with pytest.raises(InputError, match="changed while it was in use"):
        local_copy(pinned)
    assert (local_copy(output) / "unet" / "config.json").read_text() == "changed"
    assert folder.is_dir()


def test_a_download_that_fails_leaves_no_copy(proxy, output, tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE, str(tmp_path))
    fs, root = filesystem(output)
    for name in ("a", "b"):
        fs.pipe_file(f"{root}/{name}", name.encode())
    proxy.fault = lambda method, path: "500" if method in ("GET", "HEAD") and path.endswith("/b") else None
    with pytest.raises(OSError):
        local_copy(output)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []
    proxy.fault = lambda method, path: None
    assert sorted(path.name for path in local_copy(output).iterdir()) == ["a", "b"]
    with pytest.raises(InputError, match="nothing is at"):
        local_copy(f"{output}/absent")
