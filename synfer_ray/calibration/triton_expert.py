"""An expert on another machine: any classifier behind the Open Inference Protocol, Triton's among them."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from synfer_ray.calibration.experts import resize
from synfer_ray.calibration.temperature import softmax
from synfer_ray.config import ExpertConfig
from synfer_ray.errors import InputError, choose
from synfer_ray.remote.model import Tensor, open_remote
from synfer_ray.taxonomy.expressions import resolve_label_order, to_expressions

LAYOUTS = ("NCHW", "NHWC", "encoded")
PIXELS = {"FP32": np.float32, "FP16": np.float16, "UINT8": np.uint8}
"""Datatypes of an input that takes pixels."""


class TritonExpert:
    """Votes by asking a server; it uses one input and one output of the server's model.

    Float inputs get pixels in [0, 1], scaled by `mean` and `std`; UINT8 inputs 0 to 255; an `encoded` input
    PNG files. Two grey images go through at the start, so that a wrong description fails here.

    Raises:
        InputError: no such server, model, input or output, or one that does not fit its description.
    """

    def __init__(self, spec: ExpertConfig) -> None:
        remote = spec.remote
        self.name = spec.name
        self.spec = spec
        self.layout = choose(remote.layout, LAYOUTS, "layout")
        choose(spec.output, ("logits", "probabilities"), "expert output")
        order = spec.label_order
        self.label_order = resolve_label_order(order.split(",") if "," in order else order)
        self.mean = np.asarray(spec.mean, dtype=np.float32).reshape(-1, 1, 1)
        self.std = np.asarray(spec.std, dtype=np.float32).reshape(-1, 1, 1)
        self.model = open_remote(remote)
        metadata = self.model.metadata()
        self.input, self.datatype = self._input(metadata.inputs)
        self.output = self._output(metadata.outputs)
        self._ask(np.zeros((min(2, remote.batch_size), 3, spec.input_size, spec.input_size), np.float32))

    def predict(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Images [B, 3, H, W] in [-1, 1] -> probabilities [B, 7] in the order of EXPRESSIONS.

        Raises:
            InputError: the server refuses the images, or answers in another shape.
            ConnectionError: it does not answer.
        """
        size = self.spec.remote.batch_size
        batches = [images[first : first + size] for first in range(0, len(images), size)]
        scores = np.concatenate([self._ask(batch) for batch in batches])
        if self.spec.output == "probabilities":
            scores = np.log(np.maximum(scores, 1e-12))
        return to_expressions(softmax(scores, self.spec.temperature), self.label_order).astype(np.float32)

    def _ask(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        inputs = {self.input: (self.datatype, self._prepare(images))}
        scores = self.model.infer(inputs, [self.output])[self.output]
        expected = (len(images), len(self.label_order))
        if scores.shape != expected:
            raise InputError(
                f"{self.model}: output {self.output!r} has the shape {list(scores.shape)} for {len(images)} "
                f"images, but its label order makes {list(expected)}: {', '.join(self.label_order)}"
            )
        return scores.astype(np.float32)

    def _prepare(self, images: NDArray[np.float32]) -> NDArray[Any]:
        pixels = resize(images, self.spec.input_size, self.spec.grey) / 2 + 0.5
        if self.datatype in ("FP32", "FP16"):
            pixels = ((pixels - self.mean) / self.std).astype(PIXELS[self.datatype])
        else:
            pixels = (pixels * 255).round().clip(0, 255).astype(np.uint8)
        if self.layout != "NCHW":
            pixels = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
        if self.layout != "encoded":
            return pixels
        return np.array([_png(image) for image in pixels], dtype=object)

    def _input(self, inputs: Mapping[str, Tensor]) -> tuple[str, str]:
        name = self._only(self.spec.remote.input_name, inputs, "input")
        side, channels = self.spec.input_size, 1 if self.spec.grey else 3
        datatypes, shape = {
            "NCHW": (tuple(PIXELS), (-1, channels, side, side)),
            "NHWC": (tuple(PIXELS), (-1, side, side, channels)),
            "encoded": (("BYTES",), (-1,)),
        }[self.layout]
        found = inputs[name]
        if found.datatype not in datatypes or not found.fits(shape) or found.shape[0] != -1:
            raise InputError(
                f"{self.model}: input {name!r} is {found}, but the expert's layout {self.layout}, "
                f"input_size {side} and grey {self.spec.grey} need "
                f"{' or '.join(datatypes)} {list(shape)}"
            )
        return name, found.datatype

    def _output(self, outputs: Mapping[str, Tensor]) -> str:
        name = self._only(self.spec.remote.output_name, outputs, "output")
        found, shape = outputs[name], (-1, len(self.label_order))
        if not found.datatype.startswith("FP") or not found.fits(shape):
            raise InputError(
                f"{self.model}: output {name!r} is {found}, but the label order of {shape[1]} classes needs "
                f"FP32 {list(shape)}: {', '.join(self.label_order)}"
            )
        return name

    def _only(self, name: str, tensors: Mapping[str, Tensor], what: str) -> str:
        if name or len(tensors) != 1:
            return choose(name, tensors, f"{what} of {self.model}")
        return next(iter(tensors))


def _png(pixels: NDArray[np.uint8]) -> bytes:
    """Encodes [H, W, 1 or 3]."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).save(buffer, "PNG")
    return buffer.getvalue()
