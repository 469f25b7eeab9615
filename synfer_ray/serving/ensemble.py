"""The voters and the vote on one device: faces in, verdicts out, the same for a face in any batch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from synfer_ray.config import ServeConfig
from synfer_ray.serving.faces import Face
from synfer_ray.serving.steady_voter import SteadyVoter
from synfer_ray.stages.calibrator import Calibrator
from synfer_ray.stages.voter import Voter
from synfer_ray.storage.schema import VOTER
from synfer_ray.taxonomy.expressions import EXPRESSIONS


@dataclass(frozen=True, eq=False)
class Verdict:
    """What the vote made of a face.

    Attributes:
        label: the calibrated expression; of a rejected face, the leading one.
        probabilities: the voters' average, float32 [7] in the order of EXPRESSIONS.
        votes: what each voter said, float32 [V, 7].
        agreement: share of voters whose own choice is `label`.
        decision: `agree`, `relabel`, `keep_soft` or `reject`, with its `reason`.
        attention: where FERAnno looked, [H, W], if that was asked for.
    """

    label: str
    probabilities: NDArray[np.float32]
    votes: NDArray[np.float32]
    agreement: float
    decision: str
    reason: str
    attention: NDArray[np.float32] | None = None


class Ensemble:
    """Loads the voters, and has them answer once.

    Raises:
        InputError: a model is missing, damaged or described wrongly.
    """

    def __init__(self, config: ServeConfig) -> None:
        voter = Voter(config, config.voters)
        if voter.refusal:  # type: ignore[attr-defined]
            raise voter.refusal  # type: ignore[attr-defined]
        self.rule = Calibrator(config.voters, config.vote)
        self.batch_size, self.image_size = config.batch_size, voter.image_size
        experts = {expert.name: expert for expert in voter.experts}
        self.voters = [SteadyVoter(experts[name], self.batch_size, self.image_size) for name in config.voters]
        self.probe = Face(
            np.linspace(-1, 1, 3 * self.image_size**2, dtype=np.float32).reshape(3, self.image_size, -1)
        )
        self.first_answer = self([self.probe])[0]

    def quicken(self) -> None:
        """Makes the voters faster, with the same answers; they may be asked meanwhile."""
        for voter in self.voters:
            voter.quicken()

    @torch.inference_mode()
    def __call__(self, faces: Sequence[Face]) -> list[Verdict]:
        """Judges up to `batch_size` faces."""
        pixels, wanted = np.stack([face.pixels for face in faces]), [face.attention for face in faces]
        said, attention = zip(*(voter(pixels, wanted) for voter in self.voters))
        votes = np.stack(said, axis=1)
        maps = next(filter(None, attention), [None] * len(faces))
        return [self._verdict(*row) for row in zip(faces, votes, maps)]

    def _verdict(
        self, face: Face, votes: NDArray[np.float32], attention: NDArray[np.float32] | None
    ) -> Verdict:
        row = {
            "assigned_label": None if face.label is None else EXPRESSIONS.index(face.label),
            "compound": None,
            **{f"{VOTER}{name}": vote for name, vote in zip(self.rule.voters, votes)},
        }
        outcome = self.rule.outcome([row])
        return Verdict(
            label=EXPRESSIONS[int(outcome.label[0])],
            probabilities=outcome.probs[0],
            votes=votes,
            agreement=float(outcome.agreement[0]),
            decision=str(outcome.decision[0]),
            reason=str(outcome.reason[0]),
            attention=attention,
        )
