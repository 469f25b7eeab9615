"""The ensemble vote: experts confirm, correct or refuse the label of a generated image (paper 4.1, 4.4).

The paper replaces a mismatched label in 4.1 and filters the sample in 4.4. Here one rule covers both, and
every row records what became of it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from synfer_ray.config import VoteConfig
from synfer_ray.errors import InputError, choose
from synfer_ray.taxonomy.expressions import EXPRESSIONS, parse_expression

ON_MISMATCH = ("relabel", "filter", "keep_soft")


@dataclass(frozen=True)
class VoteResult:
    """The outcome of a vote on B images.

    Attributes:
        decision: `agree`, `relabel`, `keep_soft` or `reject`, [B].
        label: index of the calibrated expression, int64 [B]; always the largest of `probs`.
        probs: the voters' average, float32 [B, C].
        agreement: share of voters whose own choice is `label`, float32 [B].
        reason: why a row is rejected (`not_finite`, `mismatch`, `low_confidence`, `no_majority`), or "", [B].
    """

    decision: NDArray[np.str_]
    label: NDArray[np.int64]
    probs: NDArray[np.float32]
    agreement: NDArray[np.float32]
    reason: NDArray[np.str_]


def vote(
    probabilities: NDArray[np.floating],
    assigned: NDArray[np.integer],
    weights: Sequence[float] | None = None,
    on_mismatch: str = "relabel",
    relabel_threshold: float = 0.6,
    min_confidence: float = 0.0,
) -> VoteResult:
    """Compares assigned labels with the average opinion of the voters.

    The assigned label stands if it leads the average. On a mismatch, `relabel` takes the leading expression
    if its probability reaches `relabel_threshold` and more than half of the voters choose it, and rejects the
    row otherwise; `filter` rejects every mismatch; `keep_soft` keeps the row with the average as its soft
    label. Ties go to the expression with the lower index; the order of the voters never matters.

    Args:
        probabilities: calibrated class probabilities of each voter, [V, B, C].
        assigned: index of the expression each image was generated for, [B].
        weights: one non-negative weight a voter; equal if None.
        min_confidence: rows whose leading probability is lower are rejected, agreeing or not.

    Raises:
        InputError: unknown `on_mismatch`, or arrays that do not fit together.
    """
    choose(on_mismatch, ON_MISMATCH, "on_mismatch")
    if probabilities.ndim != 3 or probabilities.shape[1] != len(assigned):
        raise InputError(
            f"probabilities of shape {probabilities.shape} do not fit {len(assigned)} labels: "
            "[voters, images, classes] are needed"
        )

    finite = np.isfinite(probabilities).all(axis=(0, 2))
    opinions = np.where(finite[:, None], probabilities, 0.0)
    probs = average_opinion(opinions, weights)
    label = _leader(probs)
    agreement = (_leader(opinions) == label).mean(axis=0)
    confidence = probs.max(axis=-1)

    agree = label == assigned
    refusals = {
        "not_finite": ~finite,
        "low_confidence": (confidence < min_confidence)
        | (~agree & (on_mismatch == "relabel") & (confidence < relabel_threshold)),
        "mismatch": ~agree & (on_mismatch == "filter"),
        "no_majority": ~agree & (on_mismatch == "relabel") & (agreement <= 0.5),
    }
    reason = np.select(list(refusals.values()), list(refusals), default="")
    decision = np.where(reason != "", "reject", np.where(agree, "agree", on_mismatch))
    return VoteResult(decision, label, probs.astype(np.float32), agreement.astype(np.float32), reason)


def average_opinion(
    probabilities: NDArray[np.floating], weights: Sequence[float] | None = None
) -> NDArray[np.floating]:
    """Averages the probabilities [V, B, C] of voters, who weigh alike if `weights` is None: [B, C].

    Raises:
        InputError: the weights do not fit.
    """
    shares = np.ones(len(probabilities)) if weights is None else np.asarray(weights, dtype=np.float64)
    if shares.shape != (len(probabilities),) or (shares < 0).any() or not shares.sum() > 0:
        raise InputError(
            f"weights {weights} do not fit {len(probabilities)} voters: one non-negative weight each"
        )
    weighted = probabilities * (shares / shares.sum())[:, None, None]
    return np.sort(weighted, axis=0).sum(axis=0)  # sorted: the sum's rounding does not depend on voter order


def reweight(probabilities: NDArray[np.floating], class_weights: Sequence[float]) -> NDArray[np.floating]:
    """Corrects each voter for classes that were rarer where it learnt than they are here.

    Probabilities [V, B, C] are multiplied by a positive factor a class, and sum to one again.
    """
    weighted = probabilities * np.asarray(class_weights)
    return weighted / np.maximum(weighted.sum(axis=2, keepdims=True), np.finfo(np.float64).tiny)


def check_vote(config: VoteConfig) -> None:
    """Refuses settings of the vote that make no sense.

    Raises:
        InputError: naming the setting.
    """
    choose(config.on_mismatch, ON_MISMATCH, "vote.on_mismatch")
    class_weights(config)


def class_weights(config: VoteConfig) -> list[float]:
    """Returns the weight of each expression, [7]: 1 where nothing is said.

    Raises:
        InputError: an unknown expression, one that is named twice, or a weight that is no positive number.
    """
    weights = {parse_expression(name): weight for name, weight in config.class_weights.items()}
    if len(weights) < len(config.class_weights):
        raise InputError(f"vote.class_weights names an expression twice: {', '.join(config.class_weights)}")
    for name, weight in weights.items():
        if not 0 < weight < math.inf:
            raise InputError(f"vote.class_weights.{name}={weight}; a positive number is needed")
    return [weights.get(name, 1.0) for name in EXPRESSIONS]


def check_roles(guide: str | None, voters: Sequence[str], judge: str | None) -> None:
    """Keeps the roles apart: what guides may not vote or judge, and what votes may not judge.

    A classifier scores images that were optimised for it, or selected by it, far too well.

    Args:
        guide: name of the classifier behind semantic guidance, None without guidance.
        voters: names of the classifiers that vote on labels.
        judge: name of the classifier that measures expression accuracy, None if nothing is measured.

    Raises:
        InputError: a name fills two roles, or a voter is listed twice.
    """
    roles = [("guide", guide), *(("voter", name) for name in voters), ("judge", judge)]
    taken: dict[str | None, str] = {}
    for role, name in roles:
        if name in taken:
            raise InputError(f"classifier {name!r} is {taken[name]} already and cannot be {role} as well")
        if name is not None:
            taken[name] = role


def _leader(probabilities: NDArray[np.floating]) -> NDArray[np.int64]:
    return probabilities.round(6).argmax(axis=-1)  # rounded: a tie stays a tie after summation
