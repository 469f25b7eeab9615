"""The table that FEText stages pass on: one row a face, rejected rows among the others until the end."""

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from synfer_ray.faces.images import BadImage

Row = dict[str, Any]

FACE_ROWS = pa.schema(
    {
        "index": pa.int64(),
        "sample_id": pa.string(),
        "image": pa.binary(),
        "label": pa.string(),
        "label_probs": pa.list_(pa.float32()),
        "source_label": pa.string(),
        "attributes": pa.map_(pa.string(), pa.string()),
        "action_units": pa.list_(pa.float32()),
        "caption": pa.string(),
        "caption_writer": pa.string(),
        "stage": pa.string(),
        "reason": pa.string(),
        "detail": pa.string(),
    }
)


def face_table(rows: list[Row]) -> pa.Table:
    """Makes the table; columns that a row does not have are null."""
    return pa.Table.from_pylist(rows, schema=FACE_ROWS)


def face_rows(table: pa.Table) -> list[Row]:
    """Returns the rows of the table; `attributes` is a dict."""
    return table.to_pylist(maps_as_pydicts="strict")


def update_accepted(table: pa.Table, stage: str, update: Callable[[Row], Row]) -> pa.Table:
    """Applies a stage to every row that no earlier stage rejected.

    Args:
        table: in `FACE_ROWS`.
        stage: the name that rejects are counted under.
        update: returns the changed columns of a row; a `reason` among them, or a `BadImage`, rejects it.
    """
    rows = face_rows(table)
    for row in rows:
        if row["reason"] is None:
            row.update(_changes(update, row))
            if row["reason"] is not None:
                row["stage"] = stage
    return face_table(rows)


def _changes(update: Callable[[Row], Row], row: Row) -> Row:
    try:
        return update(row)
    except BadImage as error:
        return {"reason": error.reason, "detail": error.detail}
