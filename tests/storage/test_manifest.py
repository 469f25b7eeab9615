import uuid
from collections import Counter

import pyarrow.parquet as pq
import pytest

from synfer_ray.errors import InputError
from synfer_ray.storage.locations import filesystem
from synfer_ray.storage.manifest import claim_output, read_manifest, write_manifest
from synfer_ray.taxonomy.expressions import EXPRESSIONS
from tests.fake_dataset import fill, sample

PLAN = {"seed": 0, "num_images": 20, "models": {"unet": "aa"}, "quotas": [1, 2]}


@pytest.fixture(params=["local", "memory"])
def output(request, tmp_path):
    return str(tmp_path / "out") if request.param == "local" else f"memory://{uuid.uuid4().hex}/out"


def test_the_same_plan_continues(output):
    first = claim_output(output, PLAN)
    fill(output, shards=1)
    assert claim_output(output, {**PLAN, "quotas": (1, 2)}) == first


def test_a_changed_plan_is_refused_naming_each_key_with_both_values(output):
    claim_output(output, PLAN)
    fill(output, shards=1)
    changed = {"seed": 1, "num_images": 20, "models": {"unet": "aa", "vae": "bb"}, "quotas": [1, 2]}
    with pytest.raises(InputError) as refusal:
        claim_output(output, changed)
    message = str(refusal.value)
    assert "seed: 0 -> 1" in message
    assert 'models.vae: (not set) -> "bb"' in message
    assert "num_images" not in message and "unet" not in message
    claim_output(output, PLAN)


def test_the_plan_may_change_as_long_as_nothing_is_committed(output):
    claim_output(output, PLAN)
    claim_output(output, PLAN | {"seed": 1}, config={"shard_rows": 8})
    fill(output, shards=1)
    with pytest.raises(InputError, match="seed: 1 -> 0"):
        claim_output(output, PLAN)
    with pytest.raises(InputError, match="shard_rows: 8 -> 16"):
        claim_output(output, PLAN | {"seed": 1}, config={"shard_rows": 16})


def test_a_folder_of_somebody_else_is_refused(output):
    fs, root = filesystem(output)
    fs.makedirs(root)
    fs.pipe_file(f"{root}/thesis.tex", b"years of work")
    with pytest.raises(InputError, match=r"thesis\.tex"):
        claim_output(output, PLAN)
    assert fs.find(root) == [f"{root}/thesis.tex"]


def test_an_empty_folder_or_an_interrupted_claim_is_free(tmp_path):
    (tmp_path / ".run.json.0a1b2c3d.tmp").touch()
    claim_output(tmp_path, PLAN)
    assert (tmp_path / "run.json").is_file()


def test_the_manifest_sums_up_the_commits(output):
    plan = claim_output(output, PLAN, config={"actors": 2}, planned_rows=20)
    fill(output, shards=2, rows=10, rejected_every=5)
    manifest = write_manifest(output)
    assert read_manifest(output) == manifest
    assert manifest.plan_fingerprint == plan
    assert manifest.plan["models"] == {"unet": "aa"}
    assert manifest.config == {"actors": 2}
    assert manifest.labels == Counter(EXPRESSIONS[sample(i)["label"]] for i in range(20) if i % 5 != 4)
    assert "pyarrow" in manifest.versions

    fs, root = filesystem(output)
    files = [path for folder in ("data", "rejects") for path in fs.find(f"{root}/{folder}")]
    assert manifest.totals["bytes"] == sum(fs.size(path) for path in files)
    assert manifest.totals["rows"] + manifest.totals["rejects"] == manifest.planned_rows == 20
    assert sum(manifest.reject_reasons.values()) == manifest.totals["rejects"] == 4
    for shard in manifest.shards:
        with fs.open(f"{root}/{shard.file}") as file:
            assert pq.ParquetFile(file).metadata.num_rows == shard.rows


def test_a_folder_without_a_plan_has_no_manifest(tmp_path):
    with pytest.raises(InputError, match=r"run\.json"):
        write_manifest(tmp_path)
    with pytest.raises(InputError, match=r"manifest\.json"):
        read_manifest(tmp_path)


def test_a_damaged_plan_is_named(tmp_path):
    fill(tmp_path, shards=1)
    (tmp_path / "run.json").write_text('{"plan": ')
    with pytest.raises(InputError, match=r"damaged.*run\.json"):
        claim_output(tmp_path, PLAN)
