"""`calibrate` with a server: the same folder as with the models at hand."""

import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from synfer_ray.calibrate import calibrate
from synfer_ray.config import CalibrateConfig, PoolConfig, RequestsConfig, VoteConfig
from synfer_ray.errors import InputError
from synfer_ray.storage.manifest import read_manifest
from synfer_ray.storage.verify import verify
from synfer_ray.taxonomy.expressions import EXPRESSIONS
from tests.fake_dataset import face

CLASSES = (*EXPRESSIONS, "contempt")


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """Class folders, one of no basic expression, and a broken file."""
    folder = tmp_path_factory.mktemp("faces")
    index = 0
    for name in CLASSES:
        (folder / name).mkdir()
        for _ in range(2):
            face(index, 40).save(folder / name / f"{index}.png")
            index += 1
    (folder / "happy" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n....")
    return folder


@pytest.fixture(scope="module")
def there(server, faces, tmp_path_factory):
    """Settings of a run on the service."""
    return CalibrateConfig(
        input=str(faces),
        output=str(tmp_path_factory.mktemp("calibrated") / "there"),
        server=f"http://{server.http}",
        shard_rows=5,
        requests=RequestsConfig(concurrency=2, batch_size=3, retries=2),
    )


@pytest.fixture(scope="module")
def finished(there):
    calibrate(there)
    return Path(there.output)


def rows_of(output: Path) -> list[dict]:
    """Returns all rows in order; the unknown action units, which equal nothing, as text."""
    paths = [*output.glob("data/*.parquet"), *output.glob("rejects/*.parquet")]
    rows = [row for path in paths for row in pq.read_table(path).to_pylist()]
    for row in rows:
        row["action_units"] = str(row.get("action_units"))
    return sorted(rows, key=lambda row: row["index"])


def test_the_rows_are_those_of_the_models_at_hand(finished, there, serve_config):
    here = CalibrateConfig(
        input=there.input,
        output=str(finished.parent / "here"),
        bundle=serve_config.bundle,
        vote=serve_config.vote,
        batch_size=serve_config.batch_size,
        shard_rows=5,
        voter_pool=PoolConfig(min_actors=1, num_cpus=0.5),  # beside the replica
    )
    calibrate(here)
    assert rows_of(finished) == rows_of(Path(here.output))
    ours, theirs = read_manifest(here.output), read_manifest(finished)
    assert ours.totals["rows"] == theirs.totals["rows"] > 0
    assert ours.reject_reasons == theirs.reject_reasons
    assert verify(finished) == []
    assert {path.name for path in finished.iterdir()} == {path.name for path in Path(here.output).iterdir()}


def test_every_face_is_written_or_rejected(finished):
    totals = read_manifest(finished).totals
    assert totals["rows"] + totals["rejects"] == 17
    reasons = read_manifest(finished).reject_reasons
    assert sum(reasons.values()) == totals["rejects"]


def test_the_folder_says_who_voted(finished, there):
    run = json.loads((finished / "run.json").read_text())
    assert run["plan"]["voters"] == ["feranno", "residual", "separable"]
    assert set(run["plan"]["models"]) == {"server"}
    assert "bundle" not in run["config"] and run["config"]["server"] == there.server


def test_a_second_run_finds_nothing_to_do(finished, there, server, capsys):
    calibrate(replace(there, server=f"grpc://{server.grpc}"))  # another door to the same models
    assert "nothing to do" in capsys.readouterr().out


def test_what_the_service_does_not_take_is_a_reject(there, tmp_path, server):
    (tmp_path / "faces").mkdir()
    face(0, 40).save(tmp_path / "faces" / "small.png")
    face(1, 600).save(tmp_path / "faces" / "large.png")
    calibrate(
        replace(
            there, input=str(tmp_path / "faces"), output=str(tmp_path / "out"), server=f"grpc://{server.grpc}"
        )
    )
    (reject,) = [row for row in rows_of(tmp_path / "out") if row["sample_id"].endswith("large.png")]
    assert (reject["stage"], reject["reason"]) == ("server", "refused")
    assert "too_many_pixels" in reject["detail"]


@pytest.mark.parametrize(
    "decided", [{"bundle": "other"}, {"voters": ["residual"]}, {"vote": VoteConfig(on_mismatch="filter")}]
)
def test_what_the_server_decides_cannot_be_set(there, decided):
    with pytest.raises(InputError, match=f"{next(iter(decided))} is decided by the server"):
        calibrate(replace(there, **decided))


def test_nobody_there_is_bad_input(there, tmp_path):
    gone = replace(
        there, server="http://127.0.0.1:9", output=str(tmp_path / "out"), requests=RequestsConfig(retries=0)
    )
    with pytest.raises(InputError, match="does not answer"):
        calibrate(gone)
