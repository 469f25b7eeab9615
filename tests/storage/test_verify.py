import pytest

from synfer_ray.errors import InputError
from synfer_ray.reporting.card import write_card
from synfer_ray.reporting.finish import finished_manifest
from synfer_ray.storage.manifest import claim_output, read_run, write_manifest
from synfer_ray.storage.shards import commit_shard, done_indices, remove_orphans
from synfer_ray.storage.verify import discard_damaged, verify
from tests.fake_dataset import fill, tables

SHARD = "data/train-00000010-00000019.parquet"


@pytest.fixture
def output(tmp_path):
    claim_output(tmp_path, {"seed": 0}, planned_rows=30)
    fill(tmp_path, shards=3, rows=10)
    write_manifest(tmp_path)
    return tmp_path


def test_a_whole_dataset_has_no_problems(output):
    assert verify(output) == []


def test_a_dataset_whose_repair_was_interrupted_is_not_taken_for_a_finished_one(output):
    write_card(output)
    plan = read_run(output)["plan_fingerprint"]
    assert finished_manifest(output, plan)
    (output / SHARD).unlink()
    assert discard_damaged(output) == ["commits/00000010-00000019.json"]
    assert finished_manifest(output, plan) is None


def test_it_works_on_an_object_store():
    claim_output("memory://verify/out", {"seed": 0}, planned_rows=20)
    fill("memory://verify/out", shards=2)
    write_manifest("memory://verify/out")
    assert verify("memory://verify/out") == []


@pytest.mark.parametrize("position", [4, 0.5, -1])
def test_a_flipped_bit_is_found_anywhere(output, position):
    content = bytearray((output / SHARD).read_bytes())
    content[int(position * len(content)) if isinstance(position, float) else position] ^= 0x10
    (output / SHARD).write_bytes(content)
    (problem,) = verify(output)
    assert problem.startswith(SHARD) and "altered" in problem


def test_missing_and_truncated_files_are_found(output):
    (output / SHARD).write_bytes((output / SHARD).read_bytes()[:-7])
    (output / "rejects" / "rejects-00000000-00000009.parquet").unlink()
    missing, truncated = verify(output)
    assert "rejects-00000000-00000009.parquet: missing" in missing
    assert truncated.startswith(SHARD) and "bytes instead of" in truncated


def test_strange_files_and_duplicates_are_found(output):
    (output / "data" / "train-99999999.parquet").touch()
    commit_shard(output, 15, 16, *tables([15, 16]))
    problems = verify(output)
    assert "data/train-99999999.parquet: no commit names it" in problems
    assert "sample_id fake-00000015 occurs 2 times" in problems
    assert "plan row 16 is settled 2 times" in problems
    assert any(problem.startswith("manifest.json: out of date") for problem in problems)


def test_an_unfinished_dataset_says_how_much_is_open(output):
    (output / "commits" / "00000010-00000019.json").unlink()
    problems = verify(output)
    assert "10 of 30 planned rows are neither written nor rejected" in problems


def test_only_the_damaged_shard_is_made_again(output):
    before = {path.name: path.read_bytes() for path in (output / "data").iterdir()}
    (output / SHARD).write_bytes(b"nonsense")
    assert discard_damaged(output) == ["commits/00000010-00000019.json"]
    assert set(range(30)) - done_indices(output) == set(range(10, 20))
    remove_orphans(output)
    commit_shard(output, 10, 19, *tables(range(10, 20), rejected=[14, 19]))
    write_manifest(output)
    assert verify(output) == []
    assert {path.name: path.read_bytes() for path in (output / "data").iterdir()} == before


def test_a_late_writer_of_a_finished_shard_changes_nothing(output):
    before = {path: path.read_bytes() for path in output.glob("*/*.parquet")}
    commit_shard(output, 10, 19, *tables(range(10, 20), rejected=[14, 19]))
    assert verify(output) == []
    assert {path: path.read_bytes() for path in output.glob("*/*.parquet")} == before


def test_damaged_records_and_doubled_rows_are_discarded(output):
    record = output / "commits" / "00000000-00000009.json"
    record.write_bytes(record.read_bytes().replace(b"low_confidence", b"low_confidencf"))
    commit_shard(output, 15, 16, *tables([15, 16]))
    assert "commits/00000000-00000009.json: altered" in verify(output)
    discarded = [
        f"commits/{span}.json" for span in ("00000000-00000009", "00000010-00000019", "00000015-00000016")
    ]
    assert sorted(discard_damaged(output)) == discarded
    assert done_indices(output) == set(range(20, 30))


def test_a_folder_that_is_no_dataset_is_refused(tmp_path):
    with pytest.raises(InputError, match="not a dataset folder"):
        verify(tmp_path)
