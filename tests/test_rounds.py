from collections import Counter
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synfer_ray.config import GenerateConfig
from synfer_ray.rounds import bound, lacking, next_round, rows_to_plan
from synfer_ray.storage.shards import Commit

TWO = ["happy", "sad"]


def config(**changes) -> GenerateConfig:
    return GenerateConfig(**{"output": "out", "expressions": TWO, "shard_rows": 8} | changes)


def commits(labels: list[str | None], shard_rows: int = 8) -> list[Commit]:
    """Shards of rows that were accepted under these labels, or rejected (None)."""
    made = []
    for first in range(0, len(labels), shard_rows):
        here = labels[first : first + shard_rows]
        counts = Counter(label for label in here if label)
        made.append(
            Commit(
                first,
                first + len(here) - 1,
                rows=sum(counts.values()),
                rejects=here.count(None),
                reasons={},
                labels={"happy": dict(counts)},
                decisions={},
                files={},
                committed_at=datetime.now(UTC).isoformat(),
            )
        )
    return made


def test_num_images_is_the_plan_unless_accepted_rows_are_asked_for():
    assert rows_to_plan(config(num_images=13), []) == 13
    assert rows_to_plan(config(num_images=13, accepted_per_class=10), []) == 24  # 2 x 10 in whole shards


def test_a_round_adds_what_the_rarest_expression_needs_at_its_rate():
    asked = config(accepted_per_class=12)
    assert next_round(asked, 24, {"happy": 15, "sad": 12}) == 24
    assert next_round(asked, 24, {"happy": 15, "sad": 9}) == 32  # 3 more at 9 in 24 rows
    assert next_round(asked, 24, {"happy": 15, "sad": 6}) == 48
    assert next_round(asked, 24, {"happy": 15}) == 48  # no rate to go by: as many again
    assert lacking(asked, {"happy": 15, "sad": 9}) == {"sad": 3}


def test_the_bound_is_in_whole_shards_and_ends_the_rounds():
    asked = config(accepted_per_class=12, max_images=45)
    assert bound(asked) == 40
    assert next_round(asked, 32, {"happy": 15}) == next_round(asked, 40, {"happy": 15}) == 40
    assert bound(config(accepted_per_class=12)) == 240
    assert bound(config(accepted_per_class=1, max_images=1)) == 8


@given(st.data(), st.integers(1, 12), st.sampled_from([4, 8]), st.floats(0.05, 1))
@settings(max_examples=60, deadline=None)
def test_rounds_do_not_depend_on_the_order_of_commits_nor_on_interruptions(data, wanted, shard_rows, rate):
    asked = config(accepted_per_class=wanted, shard_rows=shard_rows)
    rng = np.random.default_rng(int(1000 * rate))
    labels = [rng.choice(TWO) if rng.random() < rate else None for _ in range(bound(asked))]
    whole = commits(labels, shard_rows)

    def run(shuffle: bool) -> int:
        """Commits shard after shard as planned, in any order, and asks again after each (a resume)."""
        done: list[Commit] = []
        while len(done) * shard_rows < (planned := rows_to_plan(asked, sorted(done, key=lambda c: c.first))):
            missing = [commit for commit in whole if commit.last < planned and commit not in done]
            done.append(data.draw(st.sampled_from(missing)) if shuffle else missing[0])
        return planned

    planned = run(shuffle=False)
    assert run(shuffle=True) == planned <= bound(asked)
    counts = Counter(label for label in labels[:planned] if label)
    assert planned == bound(asked) or all(counts[name] >= wanted for name in TWO)


def test_asking_for_fewer_keeps_what_is_there():
    there = commits(TWO * 16)
    assert rows_to_plan(config(accepted_per_class=2), there) == 32


@pytest.mark.parametrize("wanted", [0, 3])
def test_expressions_are_counted_once_under_their_own_name(wanted):
    asked = config(expressions=["happiness", "happy", "sad"], accepted_per_class=wanted)
    assert set(lacking(asked, {})) == (set(TWO) if wanted else set())
