import io

import numpy as np
import pyarrow as pa
import pytest
from datasets import Features, load_dataset
from PIL import Image

from synfer_ray.storage.schema import fetext_schema, reject_schema, sample_schema
from synfer_ray.storage.shards import commit_shard
from synfer_ray.taxonomy.expressions import EXPRESSIONS
from tests.fake_dataset import VOTERS, face, png, sample, tables


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))


def load(output):
    return load_dataset("parquet", data_files=f"{output}/data/*.parquet", split="train")


def test_load_dataset_decodes_samples(tmp_path):
    output = tmp_path / "output"
    commit_shard(output, 0, 7, *tables(range(8)))
    dataset = load(output)

    assert dataset.num_rows == 8
    assert dataset.features["label"].names == list(EXPRESSIONS)
    assert dataset.features["assigned_label"].names == list(EXPRESSIONS)
    for index, row in enumerate(dataset):
        expected = sample(index)
        assert isinstance(row["image"], Image.Image)
        assert np.array_equal(np.asarray(row["image"]), np.asarray(face(index)))
        assert row["label"] == expected["label"]
        assert row["seed"] == expected["seed"]
        for name in ("label_probs", "action_units", *(f"voter_{voter}" for voter in VOTERS)):
            assert np.allclose(row[name], expected[name])


def test_load_dataset_decodes_fetext_with_unknowns(tmp_path):
    row = {
        "sample_id": "a",
        "image": {"bytes": png(face(3)), "path": None},
        "caption": "a happy face with raised cheeks",
        "action_units": [0.5, float("nan")],
        "label": None,
        "label_probs": None,
        "attributes": "{}",
        "source": "raw/3.jpg",
        "license": "unknown",
    }
    data = pa.Table.from_pylist([row, row | {"sample_id": "b", "label": 1}], schema=fetext_schema())
    commit_shard(tmp_path, 0, 1, data, reject_schema().empty_table())
    first, second = load(tmp_path)
    assert first["label"] is None
    assert np.isnan(first["action_units"][1])
    assert EXPRESSIONS[second["label"]] == "happy"
    assert second["image"].size == (64, 64)


@pytest.mark.parametrize("schema", [fetext_schema(), sample_schema(VOTERS), reject_schema()])
def test_the_metadata_describes_the_arrow_types(schema):
    features = Features.from_arrow_schema(schema)
    assert features.arrow_schema.remove_metadata() == schema.remove_metadata()


def test_the_metadata_survives_parquet(tmp_path):
    commit_shard(tmp_path, 0, 1, *tables([0, 1], rejected=[1]))
    for name, schema in (("data", sample_schema(VOTERS)), ("rejects", reject_schema())):
        (file,) = (tmp_path / name).glob("*.parquet")
        written = pa.parquet.read_schema(io.BytesIO(file.read_bytes()))
        assert written.metadata[b"huggingface"] == schema.metadata[b"huggingface"]
