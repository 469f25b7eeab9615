import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from synfer_ray.calibration.wholeness import READINGS
from synfer_ray.errors import InputError
from synfer_ray.storage.schema import sample_schema
from synfer_ray.training.ratings import read_rated
from tests.fake_dataset import VOTERS, sample


def write_shard(folder, indices):
    (folder / "data").mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pylist([sample(index) for index in indices], schema=sample_schema(VOTERS))
    pq.write_table(table, folder / "data" / f"train-{indices[0]}.parquet")


@pytest.fixture
def dataset(tmp_path):
    write_shard(tmp_path, range(5))
    write_shard(tmp_path, range(5, 10))
    return tmp_path


def test_ratings_find_their_images(dataset):
    ratings = dataset / "ratings.csv"
    ratings.write_text("sample_id,comment,rating\nfake-00000007,one eye,0\nfake-00000002,,1\n")
    rows = read_rated([str(dataset)], str(ratings), ["image", "index"]).to_pylist()
    assert [(row["index"], row["rating"]) for row in rows] == [(2, 1.0), (7, 0.0)]
    assert [row["image"] for row in rows] == [sample(index)["image"] for index in (2, 7)]


def test_one_file_rates_samples_of_several_datasets(tmp_path):
    folders = [tmp_path / "first", tmp_path / "second"]
    write_shard(folders[0], [3, 5])
    write_shard(folders[1], [4, 6])
    ratings = tmp_path / "ratings.csv"
    ratings.write_text("sample_id,rating\nfake-00000005,0\nfake-00000004,1\n")
    rows = read_rated([*map(str, folders)], str(ratings), ["index"]).to_pylist()
    assert [(row["index"], row["rating"]) for row in rows] == [(4, 1.0), (5, 0.0)]
    with pytest.raises(InputError, match="in more than one of them"):
        read_rated([str(folders[0])] * 2 + [str(folders[1])], str(ratings), [])


def test_what_several_viewers_say_of_a_face_is_averaged(dataset):
    ratings = dataset / "ratings.csv"
    lines = ["7,1,sad", "2,0.5,unclear", "7,0,sad", "7,0.5,neutral"]
    ratings.write_text("sample_id,rating,read_as\n" + "".join(f"fake-0000000{line}\n" for line in lines))
    rows = read_rated([str(dataset)], str(ratings), ["index"]).to_pylist()
    assert [(row["index"], row["rating"]) for row in rows] == [(2, 0.5), (7, 0.5)]
    readings = [dict(zip(READINGS, row["readings"])) for row in rows]
    assert {name: share for name, share in readings[0].items() if share} == {"unclear": 1.0}
    assert {name: share for name, share in readings[1].items() if share} == {
        "sad": pytest.approx(2 / 3),
        "neutral": pytest.approx(1 / 3),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sample_id\nfake-00000002\n", "columns sample_id and rating are needed"),
        ("sample_id,rating\nfake-00000002,good\n", "columns sample_id and rating are needed"),
        ("sample_id,rating\nfake-00000002,2\n", r"a number from 0 \(broken\) to 1"),
        ("sample_id,rating\nfake-00000002,\n", r"a number from 0 \(broken\) to 1"),
        ("sample_id,rating\n", r"a number from 0 \(broken\) to 1"),
        ("sample_id,rating,read_as\nfake-00000002,1,sadd\n", "unknown read_as 'sadd'.*sad"),
        ("sample_id,rating,read_as\nfake-00000002,1,\n", "unknown read_as None"),
        (
            "sample_id,rating\nfake-00000002,1\nother-00000002,0\n",
            "1 are in no rated dataset, as other-00000002",
        ),
    ],
)
def test_ratings_that_do_not_fit_are_refused(dataset, text, message):
    (dataset / "ratings.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_rated([str(dataset)], str(dataset / "ratings.csv"), [])
    with pytest.raises(InputError, match=r"nothing\.csv"):
        read_rated([str(dataset)], str(dataset / "nothing.csv"), [])


def test_ratings_of_no_dataset_are_refused(tmp_path):
    (tmp_path / "ratings.csv").write_text("sample_id,rating\nfake-00000002,1\n")
    with pytest.raises(InputError, match=r"rated=.*nothing is not a dataset"):
        read_rated([str(tmp_path / "nothing")], str(tmp_path / "ratings.csv"), [])
