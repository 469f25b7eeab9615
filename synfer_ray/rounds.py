"""How many rows to plan: `num_images`, or round after round until every expression has its accepted rows.

A round ends when each of its rows is committed, and consists of whole shards. The next one follows from the
counts of all rows so far and nothing else, so that the rows of the dataset do not depend on actors, timing or
interruptions.
"""

from collections.abc import Mapping, Sequence

from synfer_ray.config import GenerateConfig
from synfer_ray.storage.manifest import RunManifest
from synfer_ray.storage.shards import Commit, label_counts
from synfer_ray.taxonomy.expressions import parse_expression

DEFAULT_BOUND = 10
"""Rows planned at most for each accepted row that is asked for, where `max_images` says nothing."""


def rows_to_plan(config: GenerateConfig, commits: Sequence[Commit]) -> int:
    """Returns the number of rows that the plan has, as far as the commits decide it.

    Replays all rounds: each follows from the counts of the rows before it.
    """
    if not config.accepted_per_class:
        return config.num_images
    planned = min(_whole_shards(config, config.accepted_per_class * len(classes(config))), bound(config))
    while True:
        before = [commit for commit in commits if commit.last < planned]
        if sum(commit.rows + commit.rejects for commit in before) < planned:
            break
        grown = next_round(config, planned, label_counts(before))
        if grown == planned:
            break
        planned = grown
    there = 1 + max((commit.last for commit in commits), default=-1)  # more were asked for in an earlier run
    return max(planned, _whole_shards(config, there))


def next_round(config: GenerateConfig, planned: int, accepted: Mapping[str, int]) -> int:
    """Returns the number of rows to plan when all `planned` rows are settled; the same number ends the run.

    The expression that lacks most decides: as many more rows as it needs at its rate so far, at most as many
    again.

    Args:
        config: asks for `accepted_per_class` rows.
        planned: rows planned so far.
        accepted: written rows by calibrated label.
    """
    needed = [
        -(-lack * planned // max(accepted.get(name, 0), 1))  # rounded up
        for name, lack in lacking(config, accepted).items()
    ]
    if not needed:
        return planned
    more = min(max(needed), planned)
    return max(planned, min(_whole_shards(config, planned + more), bound(config)))


def lacking(config: GenerateConfig, accepted: Mapping[str, int]) -> dict[str, int]:
    """Returns how many accepted rows each expression lacks; empty if all is there."""
    wanted = config.accepted_per_class
    return {name: lack for name in classes(config) if (lack := wanted - accepted.get(name, 0)) > 0}


def is_enough(config: GenerateConfig, manifest: RunManifest) -> bool:
    """Whether a finished run holds what these settings ask for, or as much of it as may be planned."""
    if not config.accepted_per_class:
        return manifest.planned_rows == config.num_images
    return not lacking(config, manifest.labels) or (manifest.planned_rows or 0) >= bound(config)


def bound(config: GenerateConfig) -> int:
    """Returns the largest number of rows to be planned: whole shards within `max_images`, one at least."""
    most = config.max_images or DEFAULT_BOUND * config.accepted_per_class * len(classes(config))
    return max(most // config.shard_rows, 1) * config.shard_rows


def classes(config: GenerateConfig) -> list[str]:
    """Returns the expressions that are counted: those of the settings; compound ones count as their label."""
    return list(dict.fromkeys(parse_expression(name) for name in config.expressions))


def _whole_shards(config: GenerateConfig, rows: int) -> int:
    return -(-rows // config.shard_rows) * config.shard_rows
