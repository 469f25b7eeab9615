"""The table that the generation stages pass on: a sample's columns, null until a stage fills them.

A row that some stage rejects stays in the table, with the reason, until the end: nothing vanishes on the way.
"""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from synfer_ray.storage.schema import sample_schema

Row = dict[str, Any]


def sample_rows(rows: Sequence[Row], voters: Sequence[str]) -> pa.Table:
    """Makes the table; columns that a row does not have are null."""
    columns = [*sample_schema(voters), *(pa.field(name, pa.string()) for name in ("stage", "reason", "detail"))]
    return pa.Table.from_pylist(list(rows), schema=pa.schema(columns))


def rejection(stage: str, reason: str, detail: str = "") -> Row:
    """Returns the columns that turn a row into a reject."""
    return {"stage": stage, "reason": reason, "detail": detail}


def accepted(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows that no stage has rejected."""
    return [row for row in rows if row["reason"] is None]
