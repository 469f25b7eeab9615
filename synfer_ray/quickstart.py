"""Twenty images of each expression from the embedded bundle: the whole pipeline in a few minutes."""

from synfer_ray.config import GenerateConfig, QuickstartConfig
from synfer_ray.pipeline import generate


def quickstart(config: QuickstartConfig) -> None:
    """Plans 140 images and writes those that pass into `config.output`; again, it finds nothing to do.

    Raises:
        InputError: `config.output` belongs to another plan.
    """
    generate(
        GenerateConfig(output=config.output, num_images=140, seed=config.seed, batch_size=12, shard_rows=36)
    )
