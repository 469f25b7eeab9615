import json

import pyarrow.parquet as pq

from synfer_ray.stages.sample_rows import rejection, sample_rows
from synfer_ray.stages.shard_writer import ShardWriter
from synfer_ray.storage.schema import sample_schema
from synfer_ray.storage.shards import Commit, read_commits
from tests.fake_dataset import VOTERS, sample


def commit(output, rows):
    return ShardWriter(str(output), VOTERS)(sample_rows(rows, VOTERS))["commit"].to_pylist()


def test_a_block_becomes_one_committed_shard_with_every_row(tmp_path):
    rows = [sample(8), sample(9) | rejection("vote", "mismatch", "fear 0.4"), sample(10)]
    (record,) = commit(tmp_path, rows)
    (shard,) = read_commits(tmp_path)
    assert Commit.from_json(record) == shard
    assert (shard.first, shard.last, shard.reasons) == (8, 10, {"mismatch": 1})
    written = pq.read_table(tmp_path / shard.data_file)
    assert written.schema.names == sample_schema(VOTERS).names
    assert written.schema.metadata[b"huggingface"] == sample_schema(VOTERS).metadata[b"huggingface"]
    assert written["image"].to_pylist() == [sample(8)["image"], sample(10)["image"]]


def test_a_reject_holds_its_plan_as_json_with_unknown_units_null(tmp_path):
    row = sample(3) | rejection("generate", "black")
    row["action_units"][5] = float("nan")
    commit(tmp_path, [row])
    (reject,) = pq.read_table(tmp_path / read_commits(tmp_path)[0].reject_file).to_pylist()
    plan = json.loads(reject["row"], parse_constant=lambda name: f"not JSON: {name}")
    assert plan["action_units"][5] is None and plan["action_units"][4] == row["action_units"][4]
    assert (plan["prompt"], plan["seed"]) == (row["prompt"], row["seed"])
    assert (reject["stage"], reject["reason"]) == ("generate", "black")


def test_a_retry_leaves_the_same_files(tmp_path):
    rows = [sample(0), sample(1)]
    commit(tmp_path, rows)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("data/*")}
    commit(tmp_path, rows)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("data/*")} == before
