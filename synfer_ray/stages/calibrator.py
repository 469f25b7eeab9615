"""The ensemble vote (paper 4.4): a planned label becomes a calibrated one, or the row a counted reject."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from synfer_ray.calibration.vote import VoteResult, average_opinion, class_weights, reweight, vote
from synfer_ray.config import VoteConfig
from synfer_ray.stages.sample_rows import Row, accepted, rejection, sample_rows
from synfer_ray.storage.schema import VOTER
from synfer_ray.taxonomy.compounds import components_of
from synfer_ray.taxonomy.expressions import EXPRESSIONS


@dataclass(frozen=True)
class Calibrator:
    """A stage without state: settles label, label_probs, agreement and decision from the voters' columns."""

    voters: Sequence[str]
    config: VoteConfig

    def __call__(self, table: pa.Table) -> pa.Table:
        """Calibrates the rows that are not rejected."""
        rows = table.to_pylist()
        if alive := accepted(rows):
            self.settle(alive)
        return sample_rows(rows, self.voters)

    def outcome(self, rows: Sequence[Row]) -> VoteResult:
        """Votes on rows that every voter has seen."""
        probabilities: NDArray[np.floating] = np.array(
            [[row[f"{VOTER}{name}"] for row in rows] for name in self.voters], dtype=np.float64
        )
        weights = [self.config.weights.get(name, 1.0) for name in self.voters]
        if self.config.class_weights:
            probabilities = reweight(probabilities, class_weights(self.config))
        average = average_opinion(probabilities, weights)
        return vote(
            probabilities,
            np.array([claim(row, average[place]) for place, row in enumerate(rows)]),
            weights=weights,
            on_mismatch=self.config.on_mismatch,
            relabel_threshold=self.config.relabel_threshold,
            min_confidence=self.config.min_confidence,
        )

    def settle(self, rows: list[Row]) -> None:
        """Enters what the vote made of the rows."""
        outcome = self.outcome(rows)
        for place, row in enumerate(rows):
            label = int(outcome.label[place])
            row["label_probs"] = outcome.probs[place].tolist()
            if outcome.decision[place] == "reject":
                detail = f"{EXPRESSIONS[label]} {outcome.probs[place, label]:.2f}"
                row |= rejection("vote", str(outcome.reason[place]), detail)
            else:
                row |= {
                    "label": label,
                    "agreement": float(outcome.agreement[place]),
                    "decision": str(outcome.decision[place]),
                }


def claim(row: Row, average: np.ndarray) -> int:
    """Returns the expression that the voters' average [7] is held against.

    Of a compound expression it is the part that the voters prefer; a face without label has their favourite.
    """
    if row["assigned_label"] is None:
        candidates = list(EXPRESSIONS)
    else:
        candidates = list(components_of(row["compound"] or EXPRESSIONS[row["assigned_label"]]))
    share = average.round(6)  # as the vote does: a tie stays a tie
    return max((EXPRESSIONS.index(name) for name in candidates), key=lambda label: (share[label], -label))
