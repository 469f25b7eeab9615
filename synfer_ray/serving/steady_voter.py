"""A voter that says exactly the same of a face, whatever batch it comes in."""

import logging
from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from synfer_ray.calibration.experts import Expert
from synfer_ray.calibration.feranno import Annotator
from synfer_ray.calibration.recorded import RecordedAnnotator, is_recordable, recorded
from synfer_ray.stages.attention_overlay import attention_of

PROBES = 128
"""Faces of noise to try; where one number in two hundred is rounded otherwise, a few may agree by chance."""

logger = logging.getLogger("ray.serve")


class SteadyVoter:
    """Asks an expert in batches of a few sizes, in all of which its answer to a face is the same to the bit.

    Kernels may round otherwise in a batch of another size (`serving.proxy.REPRODUCIBLE` keeps Intel's matrix
    kernels from it): such sizes are left out, and faces are padded to the next one. Where even the place in a
    full batch counts, the expert sees one face at a time.

    A network of ours starts with full batches alone, in a few seconds; `quicken` does the rest.

    Args:
        largest: the size of a full batch.
    """

    def __init__(self, expert: Expert, largest: int, image_size: int) -> None:
        self.largest, self.image_size = largest, image_size
        is_waiting = is_recordable(expert)
        self.way = Way(expert, equal_sizes(expert, largest, image_size, only_largest=is_waiting))
        self.copy = deepcopy(expert) if is_waiting else None  # while nobody asks: hooks would be copied too

    def quicken(self) -> None:
        """Finds the smaller sizes and records the network, on a copy: the voter may be asked meanwhile."""
        copy, self.copy = self.copy, None
        if copy is not None:
            sizes = equal_sizes(copy, self.largest, self.image_size)
            self.way = Way(recorded(copy, sizes, self.image_size), sizes)

    def __call__(
        self, pixels: NDArray[np.float32], attention: Sequence[bool] = ()
    ) -> tuple[NDArray[np.float32], list[NDArray[np.float32] | None]]:
        """Judges faces [B, 3, S, S] in [-1, 1].

        Returns:
            Votes [B, 7] and, from FERAnno, where it looked at the faces of which `attention` wants to know.
        """
        votes: list[NDArray[np.float32]] = []
        maps: list[NDArray[np.float32] | None] = []
        way = self.way
        for first in range(0, len(pixels), way.sizes[-1]):
            faces = pixels[first : first + way.sizes[-1]]
            size = next(size for size in way.sizes if size >= len(faces))
            padded = np.concatenate([faces, *[faces[:1]] * (size - len(faces))])
            if isinstance(way.expert, Annotator | RecordedAnnotator):
                annotation = way.expert.from_images(torch.from_numpy(padded))
                votes.append(annotation.probs.cpu().numpy()[: len(faces)])
                wanted = attention[first : first + len(faces)]
                maps += [attention_of(annotation, place) if is_ else None for place, is_ in enumerate(wanted)]
            else:
                votes.append(way.expert.predict(padded)[: len(faces)])
        return np.concatenate(votes), maps


@dataclass(frozen=True)
class Way:
    """An expert, and the sizes of the batches it is asked in, rising."""

    expert: Expert
    sizes: list[int]


def equal_sizes(expert: Expert, largest: int, image_size: int, only_largest: bool = False) -> list[int]:
    """The sizes of batches, in rising order, in which an expert says the same of a face in any place.

    Args:
        only_largest: the smaller ones are not tried.
    """
    shape = (PROBES, 3, image_size, image_size)
    probes = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    expected = _in_batches(expert, probes, largest)
    a_place_on = _in_batches(expert, np.roll(probes, 1, axis=0), largest)
    if not _all_equal(np.roll(a_place_on, -1, axis=0), expected):
        logger.warning(
            "%s: answers depend on the place in a batch here, faces are judged one by one", expert.name
        )
        return [1]
    smaller = [] if only_largest else [2**power for power in range((largest - 1).bit_length())]
    agreeing = [size for size in smaller if _all_equal(_in_batches(expert, probes, size), expected)]
    return [*agreeing, largest]


def _in_batches(expert: Expert, probes: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Votes on all probes [N, 7], `size` at a time; the last batch begins anew with the first probes."""
    batches = [np.arange(first, first + size) % len(probes) for first in range(0, len(probes), size)]
    return np.concatenate([expert.predict(probes[batch]) for batch in batches])[: len(probes)]


def _all_equal(votes: NDArray[np.float32], others: NDArray[np.float32]) -> bool:
    return np.array_equal(votes, others, equal_nan=True)
