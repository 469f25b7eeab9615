"""Reads ranges of a face source and puts its labels into our names."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from synfer_ray.faces.sources import FaceSource, RawFace
from synfer_ray.stages.face_rows import Row, face_table
from synfer_ray.taxonomy.expressions import (
    ALIASES,
    EXPRESSIONS,
    clean_name,
    resolve_label_order,
    to_expressions,
)


@dataclass(frozen=True)
class FaceReader:
    """A stage: one row {first, last} in, the faces of that range out.

    Attributes:
        source: where the faces are.
        name: the prefix of every `sample_id`.
        label_names: the classes that integer labels stand for, in our spelling.
        vote_names: the classes of the vote column.
        label_votes: as how many further votes the source's own label counts.
    """

    source: FaceSource
    name: str
    label_names: tuple[str, ...] = ()
    vote_names: tuple[str, ...] = ()
    label_votes: float = 0.0

    def __call__(self, ranges: pa.Table) -> pa.Table:
        """Reads the ranges."""
        return face_table(
            [row for span in ranges.to_pylist() for row in self._rows(span["first"], span["last"])]
        )

    def _rows(self, first: int, last: int) -> list[Row]:
        return [
            {"index": first + i, "sample_id": f"{self.name}/{face.name}", "image": face.image}
            | self.label(face)
            for i, face in enumerate(self.source.read(first, last))
        ]

    def label(self, face: RawFace) -> Row:
        """Returns label, label_probs and source_label; a face of another class is rejected.

        Votes go before the label, which counts as `label_votes` more: the expression is the one with most
        votes, where a tie goes to the source's own label, unless a class outside the seven has more. A face
        without label stays, unlabelled.
        """
        source_label = self._class_name(face.label)
        row: Row = {"source_label": source_label, "label": source_label}
        if face.votes is not None and sum(face.votes) > 0:
            votes = dict(zip(self.vote_names, face.votes))
            if source_label in votes:
                votes[source_label] += self.label_votes
            best = max(EXPRESSIONS, key=lambda name: (votes[name], name == source_label))
            winner = best if votes[best] == max(votes.values()) else max(votes, key=lambda name: votes[name])
            counts = np.array([votes[name] for name in self.vote_names], dtype=np.float32)
            probabilities = to_expressions(counts, self.vote_names)
            row |= {"label": winner, "label_probs": probabilities.tolist()}
        if row["label"] is not None and row["label"] not in EXPRESSIONS:
            row |= {
                "stage": "label",
                "reason": "not_a_basic_expression",
                "detail": row["label"],
                "label": None,
            }
        return row

    def _class_name(self, label: str | int | None) -> str | None:
        """The label in our spelling; numbers (also as text) count in `label_names`."""
        if label is None or label == "":
            return None
        text = str(label)
        if self.label_names and text.isdecimal():
            return self.label_names[int(text)] if int(text) < len(self.label_names) else f"class {text}"
        return ALIASES.get(clean_name(text), clean_name(text))


def label_names(order: str, source: FaceSource | None = None) -> tuple[str, ...]:
    """Returns the classes of integer labels in our spelling; none if neither the settings nor the source say.

    Args:
        order: the name of a known order, or class names with commas; empty to ask the source.
        source: may know the names itself.

    Raises:
        InputError: the order is not known or lacks an expression.
    """
    names = order.split(",") if "," in order else order or (source and source.label_names)
    return resolve_label_order(names) if names else ()
