"""The last FEText stage: commits a finished range of faces as one shard."""

import json
from collections import Counter
from dataclasses import dataclass

import pyarrow as pa

from synfer_ray.stages.face_rows import Row, face_rows
from synfer_ray.storage.schema import fetext_schema, reject_schema
from synfer_ray.storage.shards import commit_shard
from synfer_ray.taxonomy.expressions import EXPRESSIONS


@dataclass(frozen=True)
class FaceWriter:
    """A stage: writes one whole range to `output` and returns one row, the commit record.

    Writing it again replaces equal files, so that Ray may retry it. Rejects name the image but do not hold
    it: the original is where it was.
    """

    output: str
    source: str
    license: str

    def __call__(self, table: pa.Table) -> pa.Table:
        """Commits the table, which must hold every row of its range."""
        rows = face_rows(table)
        accepted = [self._sample(row) for row in rows if row["reason"] is None]
        rejected = [self._reject(row) for row in rows if row["reason"] is not None]
        writers = Counter(row["caption_writer"] for row in rows if row["caption_writer"])
        commit = commit_shard(
            self.output,
            rows[0]["index"],
            rows[-1]["index"],
            pa.Table.from_pylist(accepted, schema=fetext_schema(bool(writers))),
            pa.Table.from_pylist(rejected, schema=reject_schema()),
            writers=writers,
        )
        return pa.table({"commit": [commit.to_json()]})

    def _sample(self, row: Row) -> Row:
        attributes = row["attributes"] | (
            {"source_label": row["source_label"]} if row["source_label"] else {}
        )
        return row | {
            "image": {"bytes": row["image"], "path": f"{row['sample_id']}.png"},
            "label": None if row["label"] is None else EXPRESSIONS.index(row["label"]),
            "attributes": json.dumps(attributes),
            "source": self.source,
            "license": self.license,
        }

    def _reject(self, row: Row) -> Row:
        plan = {"source_label": row["source_label"], "label": row["label"]}
        return row | {"row": json.dumps(plan), "image": None}
