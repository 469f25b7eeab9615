"""Models of other people vote on real faces, from the settings to the shards."""

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from synfer_ray.calibrate import calibrate
from synfer_ray.config import CalibrateConfig, ExpertConfig, FacesConfig, PoolConfig, VoteConfig
from synfer_ray.storage.manifest import read_manifest
from synfer_ray.storage.verify import verify
from synfer_ray.taxonomy.expressions import EXPRESSIONS
from tests.calibration.published.layouts import save_pickle
from tests.calibration.published.test_classifier import released
from tests.calibration.published.test_transformers_classifier import save as save_transformers
from tests.jobs.runs import rows_of
from tests.tiny_bundle import save_tiny_bundle

FACES = 24


@pytest.fixture(scope="module")
def faces(fer2013, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("faces") / "fer.parquet"
    pq.write_table(pq.read_table(fer2013 / "validation-00000-of-00001.parquet").slice(0, FACES), path)
    return path


def onnx(models: Path, file: str) -> ExpertConfig:
    settings = {"grey": True, "input_size": 64, "label_order": "fer2013", "output": "probabilities"}
    return ExpertConfig(kind="onnx", path=str(models / file), **settings)


@pytest.fixture(scope="module")
def config(faces, third_party_models, tmp_path_factory, two_cpus) -> CalibrateConfig:
    folder = tmp_path_factory.mktemp("voters")
    return CalibrateConfig(
        input=str(faces),
        output=str(folder / "out"),
        bundle=str(save_tiny_bundle(folder / "tiny")),
        voters=["minixception", "human", "ada", "vit"],
        experts={
            "minixception": onnx(third_party_models, "fer_minixception.onnx"),
            "human": onnx(third_party_models, "human_emotion.onnx"),
            "ada": ExpertConfig(
                kind="ada_df",
                path=str(save_pickle(folder / "ada.pth", released("ada_df"))),
                crop="arcface",
                label_order="rafdb",
            ),
            "vit": ExpertConfig(kind="transformers", path=save_transformers(folder / "vit")),
        },
        faces=FacesConfig(landmarker_model=str(third_party_models / "face_landmarker.task")),
        vote=VoteConfig(on_mismatch="keep_soft", weights={"ada": 0.0, "vit": 0.0}),
        image_size=64,
        batch_size=6,
        shard_rows=12,
        voter_pool=PoolConfig(min_actors=1),
    )


def test_four_kinds_of_models_vote_and_their_opinions_are_stored(config):
    pytest.importorskip("mediapipe")
    calibrate(config)
    manifest = read_manifest(config.output)
    assert verify(config.output) == []
    assert manifest.totals["rows"] + manifest.totals["rejects"] == FACES
    assert set(manifest.reject_reasons) <= {"no_face"}
    rows = [row for row in rows_of(Path(config.output)).values() if "label" in row]
    assert len(rows) > 0.8 * FACES
    for row in rows:
        opinions = np.array([row[f"voter_{name}"] for name in config.voters])
        assert opinions.shape == (4, 7)
        np.testing.assert_allclose(opinions.sum(1), 1, atol=1e-4)
        np.testing.assert_allclose(row["label_probs"], opinions[:2].mean(0), atol=1e-5)
    for name in ("minixception", "human"):
        right = [
            EXPRESSIONS[np.argmax(row[f"voter_{name}"])] == EXPRESSIONS[row["assigned_label"]] for row in rows
        ]
        assert np.mean(right) > 0.45, name
    assert {name: len(manifest.plan["models"][name]) for name in config.voters} == dict.fromkeys(
        config.voters, 16
    )
