import pytest
from hypothesis import given
from hypothesis import strategies as st

from synfer_ray.config import PoolConfig
from synfer_ray.errors import InputError
from synfer_ray.runtime import plain_error, share_cpus

VOTERS = PoolConfig(min_actors=1, num_cpus=0.25)


@given(cpus=st.integers(1, 256), generators=st.one_of(st.none(), st.integers(1, 64)))
def test_every_stage_finds_room_at_the_same_time(cpus, generators):
    light, pools = share_cpus([PoolConfig(min_actors=generators), VOTERS], cpus, gpus=0)
    taken = 2 * light + sum(pool.min_actors * pool.num_cpus for pool in pools)  # one light stage at each end
    assert taken <= cpus + 1e-9  # Ray counts in ten-thousandths
    assert light > 0 and all(pool.num_cpus > 0 for pool in pools)
    assert pools[0].min_actors == pools[0].max_actors == (generators or cpus)


def test_an_open_pool_on_gpus_has_one_actor_a_gpu():
    _, (generators, _) = share_cpus([PoolConfig(num_gpus=1.0), VOTERS], cpus=64, gpus=8)
    assert (generators.min_actors, generators.max_actors, generators.num_cpus) == (8, 8, 1.0)


def test_a_pool_with_a_maximum_grows_from_its_minimum():
    _, (generators,) = share_cpus([PoolConfig(max_actors=100)], cpus=2, gpus=0)
    assert (generators.min_actors, generators.max_actors) == (1, 100)


def test_no_pool_has_more_actors_than_there_are_shards():
    _, pools = share_cpus([PoolConfig(), PoolConfig(min_actors=3, max_actors=9)], cpus=8, gpus=0, shards=2)
    assert [(pool.min_actors, pool.max_actors) for pool in pools] == [(2, 2), (2, 2)]


def test_a_cluster_that_starts_without_cpus_keeps_the_settings():
    light, (generators,) = share_cpus([PoolConfig(min_actors=4)], cpus=0, gpus=0)
    assert (light, generators.num_cpus) == (0.25, 1.0)


def test_input_errors_of_workers_are_recognised():
    remote = Exception("ray::f()\n  File ...\nsynfer_ray.errors.InputError: no model 'x'\n\nThe above ...")
    assert isinstance(plain_error(remote), InputError) and str(plain_error(remote)) == "no model 'x'"
    other = Exception("ValueError: InputError is not the cause")
    assert plain_error(other) is other


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("PermissionError: [Errno 13] Access Denied: '/x'", PermissionError),
        ("OSError: [Errno 28] No space left on device", OSError),
        ("botocore.exceptions.ClientError: 403\n\nPermissionError: Access Denied", PermissionError),
        ("botocore.exceptions.EndpointConnectionError: nobody at http://x", OSError),
        ("OSError: truncated\n\nsynfer_ray.errors.InputError: cannot read x", InputError),
    ],
)
def test_failures_of_the_store_in_a_worker_are_recognised(text, expected):
    end = "\n\nThe above ...\n\nray.exceptions.UserCodeException: UDF failed to process a data block."
    told = plain_error(Exception(f"ray::MapBatches() (pid=1)\n  File ...\n{text}{end}"))
    assert type(told) is expected and str(told).split(": ")[-1] == text.split(": ")[-1]


def test_an_error_that_only_began_in_the_store_keeps_its_traceback():
    bug = Exception("OSError: gone\n\nValueError: bad count\n\nray.exceptions.UserCodeException: UDF failed")
    assert plain_error(bug) is bug


def test_share_of_a_pool_is_a_whole_number_of_ray_units():
    light, _ = share_cpus([PoolConfig(min_actors=3)], cpus=1, gpus=0)
    assert light * 10_000 == pytest.approx(round(light * 10_000), abs=1e-9)
