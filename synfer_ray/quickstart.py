"""Ten images of each expression from the embedded bundle: the whole pipeline in a few minutes on a laptop."""

from synfer_ray.config import GenerateConfig, QuickstartConfig
from synfer_ray.pipeline import generate


def quickstart(config: QuickstartConfig) -> None:
    """Generates 70 images into `config.output`; a second run finds nothing to do.

    Raises:
        InputError: `config.output` belongs to another plan.
    """
    generate(
        GenerateConfig(output=config.output, num_images=70, seed=config.seed, batch_size=12, shard_rows=36)
    )
