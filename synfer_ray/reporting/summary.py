"""Exact numbers over a whole dataset, from its commit records alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import numpy as np

from synfer_ray.storage.shards import Commit
from synfer_ray.taxonomy.expressions import EXPRESSIONS

FEWEST_COMMITS = 5


def label_matrix(commits: Sequence[Commit]) -> np.ndarray:
    """Returns the number of rows [7, 7] by assigned (rows) and calibrated (columns) expression."""
    matrix = np.zeros((len(EXPRESSIONS), len(EXPRESSIONS)), np.int64)
    for commit in commits:
        for assigned, labels in commit.labels.items():
            for label, rows in labels.items():
                matrix[EXPRESSIONS.index(assigned), EXPRESSIONS.index(label)] += rows
    return matrix


@dataclass(frozen=True)
class Throughput:
    """How fast the rows were settled."""

    rows_per_second: float
    active_seconds: float
    timeline: list[tuple[float, int]]
    """Active seconds since the first commit and rows settled by then."""


def throughput(commits: Sequence[Commit]) -> Throughput | None:
    """Measures the rate between commits, over all actors; None for fewer than `FEWEST_COMMITS`.

    A gap of more than ten times the median gap, and the median time of a shard, counts as a pause between two
    runs and is left out. Actors in step commit together, so that gaps alone do not tell.
    """
    ordered = sorted(commits, key=lambda commit: commit.committed_at)
    gaps = np.diff([datetime.fromisoformat(commit.committed_at).timestamp() for commit in ordered])
    if len(commits) < FEWEST_COMMITS or not np.any(gaps > 0):
        return None
    shard_seconds = np.median([sum(commit.seconds.values()) for commit in commits])
    gaps[gaps > 10 * max(np.median(gaps[gaps > 0]), shard_seconds)] = 0
    elapsed = np.concatenate([[0], np.cumsum(gaps)])
    settled = np.cumsum([commit.rows + commit.rejects for commit in ordered])
    return Throughput(
        rows_per_second=float((settled[-1] - settled[0]) / elapsed[-1]),
        active_seconds=float(elapsed[-1]),
        timeline=list(zip(elapsed.tolist(), settled.tolist())),
    )
