import json
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from synfer_ray.calibrate import calibrate
from synfer_ray.config import CalibrateConfig, PoolConfig, VoteConfig
from synfer_ray.errors import InputError
from synfer_ray.storage.manifest import read_manifest
from synfer_ray.storage.verify import verify
from tests.fake_dataset import face
from tests.jobs.runs import rows_of
from tests.tiny_bundle import save_tiny_bundle

CLASSES = {"happy": 4, "Sadness": 3, "contempt": 2}


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("calibrate")
    index = 0
    for name, count in CLASSES.items():
        (folder / "faces" / name).mkdir(parents=True)
        for _ in range(count):
            face(index, 40).save(folder / "faces" / name / f"{index}.png")
            index += 1
    (folder / "faces" / "happy" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n....")
    return CalibrateConfig(
        input=str(folder / "faces"),
        output=str(folder / "out"),
        bundle=str(save_tiny_bundle(folder / "tiny")),
        vote=VoteConfig(on_mismatch="keep_soft"),
        batch_size=2,
        shard_rows=4,
        voter_pool=PoolConfig(min_actors=1),
    )


@pytest.fixture(scope="module")
def finished(config, two_cpus):
    calibrate(config)
    return Path(config.output)


def test_every_face_is_written_or_rejected(finished):
    assert read_manifest(finished).totals | {"bytes": 0} == {"rows": 7, "rejects": 3, "bytes": 0}
    assert verify(finished) == []
    reasons = Counter((row["stage"], row["reason"]) for row in rows_of(finished).values() if "reason" in row)
    assert reasons[("label", "not_a_basic_expression")] == 2
    assert sum(reasons.values()) == 3 and ("decode" in {stage for stage, _ in reasons})


def test_rows_keep_their_label_and_image_beside_the_calibrated_label(finished, config):
    written = [row for row in rows_of(finished).values() if "label" in row]
    assert Counter(row["assigned_label"] for row in written) == {1: 4, 2: 3}
    assert {json.loads(row["attributes"])["source_label"] for row in written} == {"happy", "sad"}
    for row in written:
        original = Path(config.input) / row["sample_id"].removeprefix("input/")
        assert row["image"]["bytes"] == original.read_bytes()
        assert row["label"] == max(range(7), key=lambda label: row["label_probs"][label])
        assert Image.open(original).size == (40, 40)


def test_a_second_run_finds_nothing_to_do(finished, config, capsys):
    calibrate(config)
    assert capsys.readouterr().out == f"nothing to do: {config.output} holds all 10 faces\n"


def test_bad_input_is_refused(config, tmp_path):
    with pytest.raises(InputError, match="no faces"):
        calibrate(CalibrateConfig(input=str(tmp_path), output=str(tmp_path / "out"), bundle=config.bundle))
