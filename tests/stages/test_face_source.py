import numpy as np
import pytest

from synfer_ray.faces.sources import RawFace
from synfer_ray.stages.face_source import FaceReader
from synfer_ray.taxonomy.expressions import LABEL_ORDERS

FER2013, FERPLUS = LABEL_ORDERS["fer2013"], LABEL_ORDERS["ferplus"]


def labelled(label=None, votes=None, label_votes=0.0) -> dict:
    reader = FaceReader(None, "set", FER2013, FERPLUS, label_votes)
    return reader.label(RawFace("x", b"", label, votes))


@pytest.mark.parametrize(
    ("label", "name"),
    [(3, "happy"), ("3", "happy"), ("Angry", "anger"), ("Happiness", "happy"), (None, None), ("", None)],
)
def test_labels_are_named(label, name):
    row = labelled(label)
    assert (row["label"], row["source_label"]) == (name, name)
    assert "reason" not in row


@pytest.mark.parametrize(
    ("label", "detail"), [("contempt", "contempt"), (7, "class 7"), ("2 faces", "2 faces")]
)
def test_another_class_is_rejected(label, detail):
    row = labelled(label)
    assert (row["label"], row["reason"], row["detail"]) == (None, "not_a_basic_expression", detail)


def votes(**counts: int) -> list[int]:
    return [counts.get(name.replace(" ", "_"), 0) for name in FERPLUS]


def test_votes_go_before_the_label():
    row = labelled("fear", votes(sad=6, fear=2, contempt=2))
    assert (row["label"], row["source_label"]) == ("sad", "fear")
    assert row["label_probs"] == pytest.approx([0, 0, 0.75, 0, 0.25, 0, 0])


def test_a_tie_goes_to_the_source_label():
    assert labelled("sad", votes(neutral=5, sad=5))["label"] == "sad"
    assert labelled("happy", votes(neutral=5, sad=5))["label"] == "neutral"


def test_the_label_counts_as_further_votes():
    row = labelled("disgust", votes(anger=6, disgust=4), label_votes=10)
    assert (row["label"], row["source_label"]) == ("disgust", "disgust")
    assert row["label_probs"] == pytest.approx([0, 0, 0, 0, 0, 0.7, 0.3])
    assert labelled("fear", votes(contempt=7, fear=3), label_votes=5)["label"] == "fear"
    assert labelled("class 7", votes(anger=6, disgust=4), label_votes=10)["label"] == "anger"


@pytest.mark.parametrize("other", ["unknown", "no_face", "contempt"])
def test_a_plurality_for_another_class_is_rejected_but_a_tie_is_not(other):
    assert labelled("sad", votes(sad=4, **{other: 6}))["reason"] == "not_a_basic_expression"
    assert labelled("sad", votes(sad=5, **{other: 5}))["label"] == "sad"


def test_without_any_vote_the_label_counts():
    row = labelled("sad", votes())
    assert row["label"] == "sad"
    assert "label_probs" not in row


def test_row_numbers_and_ids():
    class Source:
        label_names = None

        def read(self, first, last):
            return [RawFace(f"{i}.png", b"%d" % i) for i in range(first, last + 1)]

    import pyarrow as pa

    table = FaceReader(Source(), "set")(pa.table({"first": [4], "last": [6]}))
    assert table["index"].to_pylist() == [4, 5, 6]
    assert table["sample_id"].to_pylist() == ["set/4.png", "set/5.png", "set/6.png"]
    assert table["reason"].to_pylist() == [None] * 3
    assert np.array(table["image"].to_pylist()).tolist() == [b"4", b"5", b"6"]
