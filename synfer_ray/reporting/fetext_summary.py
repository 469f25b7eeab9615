"""`summary.json` of FEText: rows by expression, rejects by reason, and how each action unit is spread."""

import json
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from synfer_ray.reporting.summary import label_matrix
from synfer_ray.storage.locations import Location, filesystem, write_bytes
from synfer_ray.storage.manifest import RunManifest
from synfer_ray.storage.shards import read_commits
from synfer_ray.taxonomy.action_units import ACTION_UNITS
from synfer_ray.taxonomy.expressions import EXPRESSIONS

FILE = "summary.json"
ACTIVE = 0.5


def write_fetext_summary(output: Location, manifest: RunManifest) -> str:
    """Writes the summary of a finished dataset; returns the name of the file."""
    fs, root = filesystem(output)
    units = [np.empty((0, len(ACTION_UNITS)), np.float32)]
    for shard in manifest.shards:
        with fs.open(f"{root}/{shard.file}") as file:
            column = pq.read_table(file, columns=["action_units"])["action_units"]
        units.append(np.array(column.to_pylist(), np.float32))
    counts = label_matrix(read_commits(output)).sum(axis=0)
    summary = {
        "rows": manifest.totals["rows"],
        "rejects": manifest.totals["rejects"],
        "reject_reasons": manifest.reject_reasons,
        "labels": dict(zip(EXPRESSIONS, counts.tolist())),
        "action_units": action_unit_spread(np.concatenate(units)),
    }
    write_bytes(fs, f"{root}/{FILE}", (json.dumps(summary, indent=2) + "\n").encode())
    return FILE


def action_unit_spread(intensities: np.ndarray) -> dict[str, dict[str, Any]]:
    """Returns the known share, mean and active share of each action unit known anywhere in [N, 41]."""
    spread = {}
    for name, column in zip(ACTION_UNITS, intensities.T):
        known = column[~np.isnan(column)]
        if known.size:
            spread[name] = {
                "known": round(known.size / column.size, 4),
                "mean": round(float(known.mean()), 4),
                "active": round(float((known >= ACTIVE).mean()), 4),
            }
    return spread
