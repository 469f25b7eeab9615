from collections import Counter

import pytest

from synfer_ray.stages.attempts import MAX_ATTEMPTS, Attempts, clear_attempts
from synfer_ray.stages.sample_rows import device_batches

SIZE = 4


class Death(Exception):
    """Stands for the end of the process: nothing after it is executed."""


def planned(count: int) -> list[dict]:
    return [{"index": index, "reason": None} for index in range(count)]


def work_until_done(output, count: int, deadly: set[int], deaths: Counter) -> dict[int, str]:
    """A stage that dies of some rows, begun anew until it comes through; what became of each row."""
    while True:
        rows = planned(count)
        attempts = Attempts(output, "generate")
        attempts.is_second_life = True
        done = {}
        try:
            for group, batch in attempts.batches(rows, SIZE):
                if killers := deadly & {row["index"] for row in batch}:
                    raise Death(killers)
                assert len(batch) == SIZE and all(batch[row["index"] % SIZE] is row for row in group)
                done |= {row["index"]: "done" for row in group}
        except Death as death:
            deaths.update(death.args[0])
            continue
        rejected = {row["index"]: row["reason"] for row in rows if row["reason"]}
        assert not set(rejected) & set(done)
        return done | rejected


@pytest.mark.parametrize("count", [1, 3, 4, 10])
@pytest.mark.parametrize("deadly", [set(), {0}, {2, 9}])
def test_only_the_deadly_rows_are_rejected_and_the_others_keep_their_place(tmp_path, count, deadly):
    deaths: Counter = Counter()
    here = deadly & set(range(count))
    found = work_until_done(tmp_path, count, deadly, deaths)
    assert found == {index: "crashed" if index in here else "done" for index in range(count)}
    assert all(deaths[index] <= 3 * MAX_ATTEMPTS for index in here)


def test_deaths_from_outside_cost_no_row(tmp_path):
    """A pre-empted node leaves a marker at whatever was in its hands."""
    for _ in range(2 * MAX_ATTEMPTS):
        next(Attempts(tmp_path, "generate").parts(planned(8), SIZE))
    assert set(work_until_done(tmp_path, 8, set(), Counter()).values()) == {"done"}


def test_a_first_life_writes_nothing_and_the_end_of_a_run_removes_all(tmp_path):
    rows = planned(6)
    first = Attempts(tmp_path, "vote")
    assert not first.is_second_life
    assert list(first.batches(rows, SIZE)) == list(device_batches(rows, SIZE))
    assert list(tmp_path.iterdir()) == []
    first.begin(rows)
    assert len(list(tmp_path.glob("attempts/*"))) == 1
    clear_attempts(tmp_path)
    assert list(tmp_path.glob("attempts/*")) == []
