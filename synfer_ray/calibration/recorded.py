"""Voters whose networks are recorded once: the same operations, without Python between them.

A small network spends half of its time in Python, and holds its lock meanwhile, so that a server's event loop
has to wait. TorchScript's interpreter needs neither. A recording is used only where it repeats the network
bit for bit; torch calls TorchScript deprecated, and what stands in its place needs a compiler at run time.
"""

import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from synfer_ray.calibration.experts import Expert, NetworkExpert
from synfer_ray.calibration.feranno import Annotation, Annotator
from synfer_ray.calibration.networks import FERClassifier

logger = logging.getLogger(__name__)

Outputs = tuple[Tensor, ...]


def is_recordable(expert: Expert) -> bool:
    """Whether this is one of our own networks on the CPU; what the answers of others depend on is unknown."""
    if isinstance(expert, Annotator):
        return expert.components.device.type == "cpu"
    return (
        isinstance(expert, NetworkExpert)
        and isinstance(expert.model, FERClassifier)
        and expert.device == "cpu"
    )


def recorded(expert: Expert, sizes: Sequence[int], image_size: int) -> Expert:
    """Returns a voter for images [B, 3, image_size, image_size], B among `sizes`, that answers as `expert`.

    One that is not recordable comes back as it is.
    """
    examples = [torch.rand(size, 3, image_size, image_size) for size in sizes]
    if not is_recordable(expert):
        return expert
    if isinstance(expert, Annotator):
        reading = _Reading(expert)
        record = _record(reading, examples)
        return RecordedAnnotator(expert, record, reading.sides) if record else expert
    assert isinstance(expert, NetworkExpert)
    record = _record(expert.model, examples)
    return NetworkExpert(expert.name, record, expert.temperature) if record else expert


class RecordedAnnotator:
    """An `Annotator` of images.

    Args:
        record: images [B, 3, H, W] in [-1, 1] -> logits and the attention maps of the grids of `sides`.
    """

    def __init__(self, annotator: Annotator, record: Callable[[Tensor], Outputs], sides: list[int]) -> None:
        self.name = annotator.name
        self.temperature = annotator.head.temperature
        self.record = record
        self.sides = sides

    @torch.inference_mode()
    def from_images(self, images: Tensor) -> Annotation:
        """Reads the expression from images [B, 3, H, W] in [-1, 1]."""
        logits, *maps = self.record(images)
        return Annotation((logits / self.temperature).softmax(dim=-1), dict(zip(self.sides, maps)))

    def predict(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Serves as an Expert: images [B, 3, H, W] in [-1, 1] -> probabilities [B, 7]."""
        return self.from_images(torch.from_numpy(images)).probs.numpy()


class _Reading(nn.Module):
    """Autoencoder, U-Net and head of an annotator in one module, as a recording needs them."""

    def __init__(self, annotator: Annotator) -> None:
        super().__init__()
        self.vae, self.unet = annotator.components.vae, annotator.components.unet
        self.head = annotator.head
        self.annotator = annotator
        self.sides: list[int] = []

    def forward(self, images: Tensor) -> Outputs:
        """Images [B, 3, H, W] -> logits [B, 7], attention maps from coarse to fine."""
        inputs = self.annotator.features(self.annotator.encode(images))
        self.sides = list(inputs.attention)
        return self.head(inputs), *inputs.attention.values()


def _record(network: nn.Module, examples: Sequence[Tensor]) -> Any:
    """Records a network; None if that fails, or if the recording answers an example otherwise."""
    network.eval().requires_grad_(False)
    try:
        with warnings.catch_warnings(), torch.inference_mode():
            warnings.simplefilter("ignore")  # deprecations, and branches that depend on shapes alone
            trace = torch.jit.trace(network, examples[-1], check_trace=False)
            record = torch.jit.freeze(trace, optimize_numerics=False)  # no folded norms
            pairs = [(_as_tuple(network(images)), _as_tuple(record(images))) for images in examples]
    except Exception as error:  # torch raises in many ways what it cannot trace
        logger.warning("%s is not recorded: %s", type(network).__name__, error)
        return None
    if all(torch.equal(a, b) for asked, said in pairs for a, b in zip(asked, said, strict=True)):
        return record
    logger.warning("%s is not recorded: the recording answers otherwise", type(network).__name__)
    return None


def _as_tuple(output: Tensor | Outputs) -> Outputs:
    return output if isinstance(output, tuple) else (output,)
