import pytest
from hypothesis import given
from hypothesis import strategies as st

from synfer_ray.benchmarks.price import Assumptions, gpu_hours, price_table

IDEAL = Assumptions(engine=1.0, accepted=1.0, interruptions=0.0)


def test_without_any_loss_a_million_images_take_what_the_gpu_takes():
    assert gpu_hours(10, given=IDEAL) == pytest.approx(1e6 / 10 / 3600)


def test_an_interruption_costs_the_restart_and_half_a_shard():
    given_ = Assumptions(engine=1.0, accepted=1.0, interruptions=1.0, restart_seconds=300, shard_rows=600)
    assert given_.useful(images_per_second=1) == pytest.approx(1 - (300 + 300) / 3600)


def test_half_of_the_rows_accepted_is_twice_the_price():
    whole, half = Assumptions(accepted=1.0), Assumptions(accepted=0.5)
    assert gpu_hours(4, given=half) == pytest.approx(2 * gpu_hours(4, given=whole))


@given(rate=st.floats(0.1, 100))
def test_losses_never_make_it_cheaper(rate):
    assert gpu_hours(rate) > gpu_hours(rate, given=IDEAL)


def test_the_table_has_a_row_a_rate_and_a_column_a_price():
    lines = price_table([1, 10], [0.5, 3.0], IDEAL).splitlines()
    assert lines[0].endswith("at $0.50/h | at $3.00/h |")
    assert lines[2] == "| 1 | 278 | $139 | $833 |"
    assert len(lines) == 4
