"""How far a run is, from its output folder alone: an operator may ask at any time, from any machine."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime

from synfer_ray.config import OutputConfig
from synfer_ray.reporting.pace import Pace, describe_counts
from synfer_ray.reporting.summary import throughput
from synfer_ray.storage.lease import Holder, read_lease
from synfer_ray.storage.locations import Location
from synfer_ray.storage.manifest import read_run
from synfer_ray.storage.shards import Commit, label_counts, read_commits

LATELY = 300.0
"""Seconds before the last commit that the recent rate is taken from."""


def show_status(config: OutputConfig) -> None:
    """Prints what `describe_status` tells."""
    print(describe_status(config.output))


def describe_status(output: Location) -> str:
    """Returns a few lines: rows settled, rate, time left, rejects by reason, and who writes.

    Raises:
        InputError: `output` is not a dataset folder, or a commit record is damaged.
    """
    planned = read_run(output)["planned_rows"]
    commits = read_commits(output)
    pace = pace_of(commits, planned)
    written = sum(commit.rows for commit in commits)
    whole = throughput(commits)
    lines = [
        f"{output}: {pace}",
        f"written {written:,}{describe_counts(label_counts(commits))} in {len(commits):,} shards"
        + (f", {whole.rows_per_second:.2f} images/s over the whole run" if whole else ""),
        _driver(read_lease(output), pace.settled == planned),
    ]
    return "\n".join(lines)


def pace_of(commits: Sequence[Commit], planned: int | None) -> Pace:
    """Returns where the run is; the rates are those of the last five minutes before the last commit."""
    settled = sum(commit.rows + commit.rejects for commit in commits)
    reasons: Counter[str] = Counter()
    for commit in commits:
        reasons.update(commit.reasons)
    ordered = sorted(commits, key=_moment)
    recent = [commit for commit in ordered if _moment(commit) > _moment(ordered[-1]) - LATELY]
    window = _moment(recent[-1]) - _moment(recent[0]) if recent else 0.0
    if window <= 0:
        return Pace(settled, planned, reasons=reasons)
    counted = recent[1:]  # the first one opens the window
    per_second = sum(commit.rows + commit.rejects for commit in counted) / window
    busy: Counter[str] = Counter()
    for commit in counted:
        busy.update(commit.seconds)
    return Pace(
        settled,
        planned,
        per_second,
        (planned - settled) / per_second if planned is not None and per_second else None,
        reasons,
        {stage: seconds / window for stage, seconds in busy.items()},
    )


def _driver(holder: Holder | None, is_settled: bool) -> str:
    if holder is None:
        return "no driver is at work" + ("" if is_settled else "; the same command continues")
    if holder.is_here and not holder.is_running:
        return f"{holder} died; the same command continues"
    if not holder.host:
        return f"driven by {holder}"
    silent = (datetime.now(UTC) - datetime.fromisoformat(holder.beat_at)).total_seconds()
    return f"driven by {holder}, last beat {silent:.0f} s ago"


def _moment(commit: Commit) -> float:
    return datetime.fromisoformat(commit.committed_at).timestamp()
