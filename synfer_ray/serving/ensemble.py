"""The voters and the vote on one device: faces in, verdicts out, the same for a face in any batch."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from synfer_ray.calibration.feranno import Annotator
from synfer_ray.config import ServeConfig
from synfer_ray.serving.faces import Face
from synfer_ray.stages.attention_overlay import attention_of
from synfer_ray.stages.calibrator import Calibrator
from synfer_ray.stages.voter import Voter
from synfer_ray.storage.schema import VOTER
from synfer_ray.taxonomy.expressions import EXPRESSIONS

PROBES = 8
"""Faces of noise that are looked at in every place of a batch; one alone may agree by chance."""

logger = logging.getLogger("ray.serve")


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

    They see batches of one size, so that a face's answer does not depend on its neighbours. Where it depends
    on its place in the batch, as matrix kernels may have it, they see one face at a time.

    Raises:
        InputError: a model is missing, damaged or described wrongly.
    """

    def __init__(self, config: ServeConfig) -> None:
        self.voter = Voter(config, config.voters)
        if self.voter.refusal:  # type: ignore[attr-defined]
            raise self.voter.refusal  # type: ignore[attr-defined]
        self.rule = Calibrator(config.voters, config.vote)
        self.batch_size = config.batch_size
        self.image_size = self.voter.image_size
        self.probe = Face(
            np.linspace(-1, 1, 3 * self.image_size**2, dtype=np.float32).reshape(3, self.image_size, -1)
        )
        noise = np.random.default_rng(0).uniform(-1, 1, (PROBES, *self.probe.pixels.shape))
        if any(self._depends_on_place(pixels) for pixels in noise.astype(np.float32)):
            logger.warning("answers depend on the place in a batch here: faces are judged one by one")
            self.batch_size = 1
        self.first_answer = self([self.probe])[0]

    def __call__(self, faces: Sequence[Face]) -> list[Verdict]:
        """Judges up to `batch_size` faces."""
        padded = [*faces, *[faces[0]] * (self.batch_size - len(faces))]
        votes, attention = self._votes(
            np.stack([face.pixels for face in padded]), [face.attention for face in faces]
        )
        return [
            self._verdict(face, votes[:, place], attention[place] if attention else None)
            for place, face in enumerate(faces)
        ]

    def _depends_on_place(self, pixels: NDArray[np.float32]) -> bool:
        first, *others = self._votes(np.stack([pixels] * self.batch_size))[0].swapaxes(0, 1)
        return any(not np.array_equal(votes, first, equal_nan=True) for votes in others)

    @torch.inference_mode()
    def _votes(
        self, pixels: NDArray[np.float32], attention: Sequence[bool] = ()
    ) -> tuple[NDArray[np.float32], list[NDArray[np.float32] | None]]:
        """Returns votes [V, B, 7] in the order of the voters, and FERAnno's attention where it is wanted."""
        votes: dict[str, NDArray[np.float32]] = {}
        maps: list[NDArray[np.float32] | None] = []
        for expert in self.voter.experts:
            if isinstance(expert, Annotator):
                annotation = expert.from_images(torch.from_numpy(pixels))
                votes[expert.name] = annotation.probs.cpu().numpy()
                maps = [
                    attention_of(annotation, place) if wanted else None
                    for place, wanted in enumerate(attention)
                ]
            else:
                votes[expert.name] = expert.predict(pixels)
        return np.stack([votes[name] for name in self.voter.voters]), maps

    def _verdict(
        self, face: Face, votes: NDArray[np.float32], attention: NDArray[np.float32] | None
    ) -> Verdict:
        row = {
            "assigned_label": None if face.label is None else EXPRESSIONS.index(face.label),
            "compound": None,
            **{f"{VOTER}{name}": vote for name, vote in zip(self.voter.voters, votes)},
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
