import pytest

from synfer_ray.config import GenerateConfig, PoolConfig, SamplingConfig, VoteConfig
from synfer_ray.pipeline import generate
from tests.jobs.runs import ROWS, rows_of
from tests.tiny_bundle import save_tiny_bundle


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("faults")
    return GenerateConfig(
        output=str(folder / "reference"),
        num_images=ROWS,
        bundle=str(save_tiny_bundle(folder / "tiny")),
        sampling=SamplingConfig(num_inference_steps=2),
        vote=VoteConfig(on_mismatch="keep_soft"),
        batch_size=4,
        shard_rows=8,
        generator_pool=PoolConfig(min_actors=1),
        overlays=0,
    )


@pytest.fixture(scope="module")
def reference(config, two_cpus):
    """The rows of an uninterrupted run."""
    generate(config)
    return rows_of(config.output)
