import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from synfer_ray.config import EvaluateConfig, ExpertConfig, PoolConfig, StudyConfig
from synfer_ray.errors import InputError
from synfer_ray.storage.manifest import claim_output, write_manifest
from synfer_ray.storage.schema import reject_schema, sample_schema
from synfer_ray.storage.shards import commit_shard
from synfer_ray.study import study
from tests.calibration.tiny_onnx import linear_model
from tests.fake_dataset import VOTERS, sample
from tests.tiny_bundle import save_tiny_bundle

ROWS = 14


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    reference = folder / "reference"
    claim_output(reference, {"of": "drawn faces"}, planned_rows=40)
    rows = pa.Table.from_pylist([sample(i, 32) for i in range(40)], schema=sample_schema(VOTERS))
    commit_shard(reference, 0, 39, rows, reject_schema().empty_table())
    write_manifest(reference)
    judge = folder / "judge.onnx"
    judge.write_bytes(linear_model(np.random.default_rng(0).normal(size=(64, 7)), ["N", 1, 8, 8]))
    bundle = str(save_tiny_bundle(folder / "tiny"))
    generate = {
        "bundle": bundle,
        "batch_size": 2,
        "shard_rows": 4,
        "sampling": {"num_inference_steps": 2},
        "generator_pool": {"min_actors": 1, "num_cpus": 0.5},
        "overlays": 0,
    }
    return StudyConfig(
        output=str(folder / "out"),
        num_images=ROWS,
        generate=generate,
        variants={"text only": {"au_scale": 0.0, "guidance": {"guide": None}}, "whole": None},
        evaluate=EvaluateConfig(
            input="",
            reference=str(reference),
            bundle=bundle,
            judge=ExpertConfig("judge", "onnx", str(judge), input_size=8, grey=True, label_order="fer2013"),
            image_size=32,
            pool=PoolConfig(min_actors=2),
        ),
    )


@pytest.fixture(scope="module")
def figures(config, two_cpus):
    study(config)
    return json.loads(Path(config.output, "study.json").read_text())


@pytest.mark.slow
def test_every_variant_is_judged_on_all_its_rows(figures):
    assert list(figures) == ["text only", "whole"]
    for row in figures.values():
        assert row["samples"] == ROWS
        assert row["frechet_distance"] > row["frechet_distance_real"] > 0
        assert row["frechet_distance_reconstructed"] > 0
        assert "faces_found" not in row and "au_macro_f1" not in row  # nobody looked for faces
        assert 0 <= row["nearest_correlation"] <= row["nearest_correlation_max"] < 1


@pytest.mark.slow
def test_real_faces_are_the_same_yardstick_for_all_variants(figures):
    first, second = figures.values()
    assert {k: v for k, v in first.items() if k.endswith(("_real", "_reconstructed"))} == {
        k: v for k, v in second.items() if k.endswith(("_real", "_reconstructed"))
    }
    assert first["frechet_distance"] != second["frechet_distance"]


@pytest.mark.slow
def test_table_and_picture_show_the_variants_side_by_side(figures, config):
    table = Path(config.output, "study.md").read_text()
    assert [line.split("|")[1].strip() for line in table.splitlines()[2:]] == [
        "text only",
        "whole",
        "*real faces*",
        "*reconstructed faces*",
    ]
    assert f"{figures['whole']['fer_accuracy']:.3f}" in table
    assert Image.open(f"{config.output}/study.png").width > 7 * 64


@pytest.mark.slow
def test_the_same_study_again_generates_nothing(config, figures, capsys):
    study(config)
    assert capsys.readouterr().out.count("nothing to do") == 2


def test_study_without_variants_is_refused():
    with pytest.raises(InputError, match="variants is empty"):
        study(StudyConfig(output="unused"))
