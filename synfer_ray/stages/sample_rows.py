"""The table that the generation stages pass on: a sample's columns, null until a stage fills them.

A row that some stage rejects stays in the table, with the reason, until the end: nothing vanishes on the way.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa

from synfer_ray.storage.schema import sample_schema

Row = dict[str, Any]

GENERATE, VOTE = "generate", "vote"
"""The stages with a model, as rejects, seconds and metrics name them."""


def sample_rows(rows: Sequence[Row], voters: Sequence[str]) -> pa.Table:
    """Makes the table; columns that a row does not have are null."""
    columns = [
        *sample_schema(voters),
        *(pa.field(name, pa.string()) for name in ("prompt_writer", "stage", "reason", "detail")),
        *(pa.field(_seconds(stage), pa.float64()) for stage in (GENERATE, VOTE)),
    ]
    return pa.Table.from_pylist(list(rows), schema=pa.schema(columns))


def rejection(stage: str, reason: str, detail: str = "") -> Row:
    """Returns the columns that turn a row into a reject."""
    return {"stage": stage, "reason": reason, "detail": detail}


@contextmanager
def timed(rows: Sequence[Row], stage: str) -> Iterator[None]:
    """Notes what a stage took, in equal parts for each row."""
    started = time.perf_counter()
    yield
    for row in rows:
        row[_seconds(stage)] = (time.perf_counter() - started) / len(rows)


def seconds_by_stage(rows: Sequence[Row]) -> dict[str, float]:
    """Returns what the stages took for all rows together."""
    totals = {stage: sum(row.get(_seconds(stage)) or 0.0 for row in rows) for stage in (GENERATE, VOTE)}
    return {stage: round(total, 3) for stage, total in totals.items()}


def accepted(rows: Sequence[Row]) -> list[Row]:
    """Returns the rows that no stage has rejected."""
    return [row for row in rows if row["reason"] is None]


def device_batches(rows: Sequence[Row], size: int) -> Iterator[tuple[list[Row], list[Row]]]:
    """Yields rows together with the batch of `size` that a model sees, in which row k has place k % size.

    A matrix product may round differently in a batch of another size, or at another place of the batch. Free
    places get a copy of some row.
    """
    groups: dict[int, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["index"] // size, []).append(row)
    for group in groups.values():
        batch = [group[0]] * size
        for row in group:
            batch[row["index"] % size] = row
        yield group, batch


def _seconds(stage: str) -> str:
    return f"{stage}_seconds"
