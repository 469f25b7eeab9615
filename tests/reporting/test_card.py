import pyarrow as pa
import pytest
import yaml
from datasets import load_dataset

from synfer_ray.errors import InputError
from synfer_ray.reporting.card import size_category, write_card
from synfer_ray.storage.manifest import claim_output, write_manifest
from synfer_ray.storage.schema import fetext_schema, reject_schema
from synfer_ray.storage.shards import commit_shard
from synfer_ray.taxonomy.expressions import EXPRESSIONS
from tests.fake_dataset import face, fill, png


@pytest.fixture
def output(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    output = tmp_path / "output"
    claim_output(output, {"seed": 0}, planned_rows=40)
    return output


def front_matter(output):
    _, header, body = (output / "README.md").read_text().split("---\n", 2)
    return yaml.safe_load(header), body


def test_the_folder_loads_through_its_card(output):
    fill(output, shards=2, rows=20)
    write_manifest(output)
    write_card(output)
    dataset = load_dataset(str(output), split="train")
    assert dataset.num_rows == 32
    assert dataset.features["label"].names == list(EXPRESSIONS)
    assert dataset[0]["image"].size == (64, 64)


def test_the_card_states_licence_counts_and_columns(output):
    fill(output, shards=2, rows=20)
    write_manifest(output)
    write_card(output, name='Faces: "made" & labelled', license="cc-by-4.0")
    header, body = front_matter(output)
    assert header["pretty_name"] == 'Faces: "made" & labelled'
    assert header["license"] == "cc-by-4.0"
    assert header["task_categories"] == ["image-classification"]
    assert header["annotations_creators"] == ["machine-generated"]
    assert header["size_categories"] == ["n<1K"]
    assert "synthetic" in header["tags"]

    shown = {line.split("|")[1].strip(): line for line in body.splitlines() if line.startswith("| ")}
    labels = load_dataset(str(output), split="train")["label"]
    for index, name in enumerate(EXPRESSIONS):
        assert int(shown[name].split("|")[2]) == list(labels).count(index)
    assert "ClassLabel" in shown["`label`"] and "List(float32)" in shown["`voter_residual`"]
    assert "40 rows were planned, 32 written and 8 rejected" in body


def test_fetext_is_not_called_synthetic(output):
    row = dict.fromkeys(fetext_schema().names) | {
        "sample_id": "a",
        "image": {"bytes": png(face(1)), "path": None},
        "action_units": [],
        "caption": "a face",
    }
    commit_shard(output, 0, 0, pa.Table.from_pylist([row], fetext_schema()), reject_schema().empty_table())
    write_manifest(output)
    write_card(output)
    header, body = front_matter(output)
    assert "synthetic" not in header["tags"]
    assert "face images with captions" in body and "diffusion" not in body


@pytest.mark.parametrize(
    ("rows", "name"), [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10**6, "1M<n<10M"), (10**9, "n>100M")]
)
def test_size_categories_are_those_of_the_hub(rows, name):
    assert size_category(rows) == name


def test_a_card_needs_a_manifest(output):
    with pytest.raises(InputError, match=r"manifest\.json"):
        write_card(output)
