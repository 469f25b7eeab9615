"""A small dataset from the embedded bundle: the whole pipeline in a few minutes."""

from synfer_ray.config import GenerateConfig, QuickstartConfig, VoteConfig
from synfer_ray.pipeline import generate

SHARES = {"neutral": 1, "happy": 1, "surprise": 1, "anger": 4, "disgust": 14, "fear": 9, "sad": 8}
"""The fewer faces of an expression pass, the more are planned."""
ROUNDS = 10
DEAL = [name for turn in range(max(SHARES.values())) for name in SHARES if turn < SHARES[name]]


def quickstart(config: QuickstartConfig) -> None:
    """Plans 380 images and writes those that pass into `config.output`; again, it finds nothing to do.

    Raises:
        InputError: `config.output` belongs to another plan.
    """
    generate(
        GenerateConfig(
            output=config.output,
            num_images=ROUNDS * len(DEAL),
            seed=config.seed,
            expressions=DEAL,
            vote=VoteConfig(relabel_threshold=0.95, class_weights={"fear": 4.0}),
            batch_size=12,
            shard_rows=36,
        )
    )
