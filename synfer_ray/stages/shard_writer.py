"""The last stage: one block of settled rows becomes one committed shard."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields

import pyarrow as pa

from synfer_ray.plan import PlanRow
from synfer_ray.stages.sample_rows import Row, seconds_by_stage
from synfer_ray.storage.schema import reject_schema, sample_schema
from synfer_ray.storage.shards import commit_shard

PLANNED = [field.name for field in fields(PlanRow)]


@dataclass(frozen=True)
class ShardWriter:
    """A stage: commits its block to `output` and returns one row, the commit record.

    The files are named by the first and last plan index: a retry or a resumed run writes the same ones.
    """

    output: str
    voters: Sequence[str]

    def __call__(self, table: pa.Table) -> pa.Table:
        """Commits the block."""
        rows = table.to_pylist()
        indices = [row["index"] for row in rows]
        accepted = [row for row in rows if row["reason"] is None]
        rejected = [self._reject(row) for row in rows if row["reason"] is not None]
        writers = Counter(row["prompt_writer"] for row in rows if row["prompt_writer"])
        commit = commit_shard(
            self.output,
            min(indices),
            max(indices),
            pa.Table.from_pylist(accepted, schema=sample_schema(self.voters, bool(writers))),
            pa.Table.from_pylist(rejected, schema=reject_schema()),
            seconds_by_stage(rows),
            writers,
        )
        return pa.table({"commit": [commit.to_json()]})

    def _reject(self, row: Row) -> Row:
        plan = {name: row[name] for name in PLANNED}
        if row["prompt_writer"]:
            plan["prompt_writer"] = row["prompt_writer"]
        plan["action_units"] = [None if math.isnan(value) else value for value in row["action_units"]]
        return row | {"row": json.dumps(plan, allow_nan=False)}
