import pytest

from synfer_ray.pipeline import generate
from tests.jobs.runs import rows_of, small_job


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return small_job(tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="module")
def reference(config, two_cpus):
    """The rows of an uninterrupted run."""
    generate(config)
    return rows_of(config.output)
