"""Expression experts behind one interface: whatever the model, images in, probabilities by name out."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from synfer_ray.calibration.temperature import softmax
from synfer_ray.config import ExpertConfig
from synfer_ray.errors import InputError, choose, require
from synfer_ray.taxonomy.expressions import resolve_label_order, to_expressions

if TYPE_CHECKING:
    from torch import nn

NETWORKS = ("bundle", "poster_v2", "apvit", "ada_df", "transformers")
"""Kinds that run in PyTorch: each can also be the guide."""
EXPERTS = (*NETWORKS, "onnx", "triton")
MAX_ONNX_BYTES = 2**30


class Expert(Protocol):
    """Anything that judges expressions."""

    name: str

    def predict(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Images [B, 3, H, W] in [-1, 1] -> probabilities [B, 7] in the order of EXPRESSIONS."""
        ...


class NetworkExpert:
    """A PyTorch network that votes.

    Args:
        model: images [B, 3, H, W] in [-1, 1] -> logits [B, 7] in the order of EXPRESSIONS.
    """

    def __init__(self, name: str, model: "nn.Module", temperature: float = 1.0, device: str = "cpu") -> None:
        self.name = name
        self.temperature = temperature
        self.device = device
        self.model = model.to(device)

    def predict(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Images [B, 3, H, W] in [-1, 1] -> probabilities [B, 7] in the order of EXPRESSIONS."""
        import torch

        with torch.inference_mode():
            logits = self.model(torch.from_numpy(images).to(self.device))
        return softmax(logits.float().cpu().numpy(), self.temperature).astype(np.float32)


class OnnxExpert:
    """An ONNX classifier with one image input [N, 1 or 3, S, S] and one output [N, classes].

    A grey image is sent through once at the start, so that a wrong description fails here and not mid-run.

    Args:
        label_order: a name in LABEL_ORDERS or the class names; others than EXPRESSIONS are dropped.
        threads: threads of one call; one keeps results equal on any machine load.

    Raises:
        InputError: missing, damaged or oversized file, or a model that does not fit its description.
    """

    def __init__(
        self,
        name: str,
        path: str | Path,
        label_order: str | Sequence[str],
        input_size: int = 64,
        grey: bool = False,
        mean: Sequence[float] = (0.5,),
        std: Sequence[float] = (0.5,),
        output: str = "logits",
        temperature: float = 1.0,
        threads: int = 1,
    ) -> None:
        self.name = name
        self.label_order = resolve_label_order(label_order)
        self.input_size = input_size
        self.grey = grey
        self.mean = np.asarray(mean, dtype=np.float32).reshape(-1, 1, 1)
        self.std = np.asarray(std, dtype=np.float32).reshape(-1, 1, 1)
        self.output = choose(output, ("logits", "probabilities"), "expert output")
        self.temperature = temperature
        self.session = _open_session(Path(path), threads)
        self._check(Path(path))

    def predict(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Images [B, 3, H, W] in [-1, 1] -> probabilities [B, 7] in the order of EXPRESSIONS."""
        scores = self._run(images)
        if self.output == "probabilities":
            scores = np.log(np.maximum(scores, 1e-12))
        return to_expressions(softmax(scores, self.temperature), self.label_order).astype(np.float32)

    def _run(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        pixels = (resize(images, self.input_size, self.grey) / 2 + 0.5 - self.mean) / self.std
        return self.session.run(None, {self.session.get_inputs()[0].name: pixels})[0]

    def _check(self, path: Path) -> None:
        inputs = self.session.get_inputs()
        expected = ["N", 1 if self.grey else 3, self.input_size, self.input_size]
        shape = inputs[0].shape
        fits = len(shape) == 4 and all(a == b for a, b in zip(shape[1:], expected[1:]) if isinstance(a, int))
        if len(inputs) != 1 or not fits or isinstance(shape[0], int):
            raise InputError(
                f"{path}: one input of shape {expected} (N free) is expected, but the model has {shape}"
            )
        scores = self._run(np.zeros((2, 3, self.input_size, self.input_size), dtype=np.float32))
        if scores.shape != (2, len(self.label_order)):
            raise InputError(
                f"{path}: outputs of shape {list(scores.shape[1:])} do not fit the {len(self.label_order)} "
                f"classes of its label order: {', '.join(self.label_order)}"
            )


def resize(images: NDArray[np.float32], size: int, grey: bool) -> NDArray[np.float32]:
    """Resizes images [B, 3, H, W] to [B, 1 or 3, size, size] with an antialiased bilinear filter."""
    import torch
    import torch.nn.functional as F

    from synfer_ray.calibration.networks import luminance

    pixels = torch.from_numpy(images)
    pixels = luminance(pixels) if grey else pixels
    return F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True).numpy()


def load_network(spec: ExpertConfig) -> "nn.Module":
    """Loads a classifier with gradients: images [B, 3, H, W] in [-1, 1] -> logits [B, 7] of EXPRESSIONS.

    Raises:
        InputError: the kind is not one of NETWORKS, or the model does not load.
    """
    choose(spec.kind, NETWORKS, "kind of an expert with gradients")
    if spec.kind == "bundle":
        from synfer_ray.calibration.networks import FERClassifier
        from synfer_ray.storage.weights import load_model

        return load_model(FERClassifier, spec.path)
    if spec.kind == "transformers":
        from synfer_ray.calibration.published.transformers_classifier import load_transformers

        return load_transformers(spec.path, spec.label_order)
    from synfer_ray.calibration.published.classifier import load_published

    return load_published(spec.kind, spec.path, spec.label_order)


def load_expert(spec: ExpertConfig, device: str = "cpu") -> Expert:
    """Builds the expert that `spec` describes.

    Raises:
        InputError: unknown kind, or the model does not load.
    """
    if choose(spec.kind, EXPERTS, "expert kind") in NETWORKS:
        return NetworkExpert(spec.name, load_network(spec), spec.temperature, device)
    if spec.kind == "triton":
        from synfer_ray.calibration.triton_expert import TritonExpert

        return TritonExpert(spec)
    return OnnxExpert(
        spec.name,
        spec.path,
        label_order=spec.label_order.split(",") if "," in spec.label_order else spec.label_order,
        input_size=spec.input_size,
        grey=spec.grey,
        mean=spec.mean,
        std=spec.std,
        output=spec.output,
        temperature=spec.temperature,
    )


def _open_session(path: Path, threads: int) -> Any:
    onnxruntime = require("onnxruntime", extra="onnx")
    if not path.is_file():
        raise InputError(f"missing model file: {path}")
    if path.stat().st_size > MAX_ONNX_BYTES:
        raise InputError(f"{path} is larger than {MAX_ONNX_BYTES >> 20} MiB")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has no common error class
        raise InputError(f"damaged model file: {path}: {str(error).splitlines()[0]}") from error
