import logging

import pytest


@pytest.fixture(scope="session")
def two_cpus():
    """A local Ray with two CPUs, as on the smallest machine that a job is meant for."""
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()
