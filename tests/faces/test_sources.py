import io
import json
import tarfile
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synfer_ray.errors import InputError
from synfer_ray.faces.sources import Columns, RawFace, open_source
from tests.faces.pictures import png


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def test_class_folders_are_labels(tmp_path):
    for seed, name in enumerate(
        ("train/happy/1.png", "train/happy/2.PNG", "train/contempt/3.jpg", "notes/x.txt")
    ):
        write(tmp_path / name, png(seed))
    source = open_source(str(tmp_path), Columns())
    assert len(source) == 3
    assert source.read(0, 2) == [
        RawFace("train/contempt/3.jpg", png(2), "contempt"),
        RawFace("train/happy/1.png", png(0), "happy"),
        RawFace("train/happy/2.PNG", png(1), "happy"),
    ]


def test_a_flat_folder_has_no_labels(tmp_path):
    write(tmp_path / "a.png", png(0))
    write(tmp_path / ".hidden.png", png(1))
    assert open_source(str(tmp_path), Columns()).read(0, 0) == [RawFace("a.png", png(0))]


def test_metadata_csv_labels_files(tmp_path):
    for name in "abc":
        write(tmp_path / f"{name}.png", png(ord(name)))
    write(tmp_path / "metadata.csv", b"file_name,emotion\nb.png,sad\na.png,happy\n")
    labels = [face.label for face in open_source(str(tmp_path), Columns(label="emotion")).read(0, 2)]
    assert labels == ["happy", "sad", None]
    with pytest.raises(
        InputError, match=r"unknown column of .*metadata.csv 'emotoin' \(did you mean 'emotion'\?\)"
    ):
        open_source(str(tmp_path), Columns(label="emotoin"))


def parquet(path: Path, rows: int, first: int = 0, row_group_size: int = 4) -> None:
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["anger", "joy"]}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    schema = pa.schema(
        {
            "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
            "label": pa.int64(),
            "votes": pa.list_(pa.uint8()),
        },
        metadata,
    )
    content = [
        {"image": {"bytes": b"%d" % i}, "label": i % 2, "votes": [i, 1]} for i in range(first, first + rows)
    ]
    pq.write_table(pa.Table.from_pylist(content, schema=schema), path, row_group_size=row_group_size)


@pytest.fixture(scope="module")
def three_files(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("parquet")
    for number, (first, rows) in enumerate(((0, 10), (10, 1), (11, 9))):
        parquet(folder / f"part-{number}.parquet", rows, first)
    return f"{folder}/part-*.parquet"


@given(bounds=st.tuples(st.integers(0, 19), st.integers(0, 19)).map(sorted))
def test_any_range_of_parquet_rows(three_files, bounds):
    first, last = bounds
    faces = open_source(three_files, Columns(label="label", votes="votes")).read(first, last)
    assert [(int(face.image), face.label, face.votes) for face in faces] == [
        (i, i % 2, [i, 1]) for i in range(first, last + 1)
    ]


def test_parquet_names_and_classes(three_files):
    source = open_source(three_files, Columns(label="label"))
    assert len(source) == 20
    assert source.label_names == ["anger", "joy"]
    assert [face.name for face in source.read(9, 11)] == [
        "part-0-0000009",
        "part-1-0000000",
        "part-2-0000000",
    ]
    with pytest.raises(InputError, match=r"unknown column of .* 'vote'"):
        open_source(three_files, Columns(votes="vote"))


def test_a_file_system_other_than_the_local_one(tmp_path):
    parquet(tmp_path / "a.parquet", 3)
    fsspec.filesystem("memory").pipe("/faces/a.parquet", (tmp_path / "a.parquet").read_bytes())
    assert [face.image for face in open_source("memory://faces", Columns()).read(1, 2)] == [b"1", b"2"]


def tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def test_webdataset_tars(tmp_path):
    tar(
        tmp_path / "0.tar",
        {"a/1.jpg": b"one", "a/1.cls": b"3\n", "a/2.json": b'{"label": "sad"}', "a/2.png": b"two"},
    )
    tar(tmp_path / "1.tar", {"3.webp": b"three", "4.txt": b"no image"})
    source = open_source(str(tmp_path), Columns(label="label"))
    assert source.read(0, 2) == [
        RawFace("0/1", b"one", "3"),
        RawFace("0/2", b"two", "sad"),
        RawFace("1/3", b"three"),
    ]


@pytest.mark.parametrize("name", ["x.parquet", "x.tar"])
def test_a_damaged_container_is_bad_input(tmp_path, name):
    write(tmp_path / name, b"x" * 2000)
    with pytest.raises(InputError, match="damaged"):
        open_source(str(tmp_path), Columns())


def test_nothing_there(tmp_path):
    with pytest.raises(InputError, match="no faces at"):
        open_source(str(tmp_path), Columns())
    with pytest.raises(InputError, match="no faces at"):
        open_source(str(tmp_path / "absent"), Columns())
