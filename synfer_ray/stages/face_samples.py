"""Faces as they were read become rows of the voting stages."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa

from synfer_ray.stages.face_rows import face_rows
from synfer_ray.stages.sample_rows import Row, sample_rows
from synfer_ray.taxonomy.action_units import ACTION_UNITS
from synfer_ray.taxonomy.expressions import EXPRESSIONS


@dataclass(frozen=True)
class FaceSamples:
    """A stage without state: `assigned_label` is the label that the face came with.

    Rows that the reader rejected lose their image, which nobody has decoded; the original is where it was.
    """

    voters: Sequence[str]

    def __call__(self, table: pa.Table) -> pa.Table:
        """Converts the rows."""
        return sample_rows([_sample(row) for row in face_rows(table)], self.voters)


def _sample(row: Row) -> Row:
    return row | {
        "image": {"bytes": row["image"], "path": row["sample_id"]} if row["reason"] is None else None,
        "label": None,
        "label_probs": None,
        "assigned_label": None if row["label"] is None else EXPRESSIONS.index(row["label"]),
        "action_units": [math.nan] * len(ACTION_UNITS),
        "prompt": "",
        "attributes": json.dumps({"source_label": row["source_label"]}),
    }
