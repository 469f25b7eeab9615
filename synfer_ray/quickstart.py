"""Four accepted images of each expression from the embedded bundle: the whole pipeline in a few minutes."""

from synfer_ray.config import GenerateConfig, QuickstartConfig
from synfer_ray.pipeline import generate


def quickstart(config: QuickstartConfig) -> None:
    """Generates into `config.output` until every expression has four images; again, it finds nothing to do.

    Raises:
        InputError: `config.output` belongs to another plan.
        RunFailed: an expression has too few after the most images that such a run plans.
    """
    generate(
        GenerateConfig(
            output=config.output, accepted_per_class=4, seed=config.seed, batch_size=12, shard_rows=36
        )
    )
