"""Our own models on disk: a folder with config.json and model.safetensors. No pickle is ever read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from synfer_ray.errors import InputError


class Configured(Protocol):
    """A module that can be built again from the keywords in `config`."""

    config: dict[str, Any]


Model = TypeVar("Model", bound=nn.Module)


def save_model(model: nn.Module, folder: str | Path, half: bool = False) -> None:
    """Writes `model.config` and the weights (as float16 if `half`)."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(model.config, indent=2) + "\n")
    weights = {name: _storable(value, half) for name, value in model.state_dict().items()}
    save_file(weights, folder / "model.safetensors")


def load_model(cls: type[Model], folder: str | Path) -> Model:
    """Builds `cls(**config)` and fills it, in float32 and evaluation mode.

    Raises:
        InputError: a file is missing or damaged, or the keys, shapes or values do not fit the model.
    """
    config_path = Path(folder) / "config.json"
    try:
        config = json.loads(config_path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"missing model file: {config_path}") from error
    except ValueError as error:
        raise InputError(f"damaged model file: {config_path}: {error}") from error
    try:
        model = cls(**config)
    except Exception as error:  # wrong values fail in as many ways as there are layers
        raise InputError(f"{config_path} does not describe a {cls.__name__}: {error}") from error
    load_weights(model, read_weights(Path(folder) / "model.safetensors"), str(folder))
    return model.eval()


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Reads a safetensors file.

    Raises:
        InputError: the file is missing or not a valid safetensors file.
    """
    if not Path(path).is_file():
        raise InputError(f"missing model file: {path}")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise InputError(f"damaged model file: {path}: {error}") from error


def load_weights(model: nn.Module, weights: Mapping[str, Tensor], origin: str) -> None:
    """Copies `weights` into `model`; every key must match.

    Raises:
        InputError: with a report of missing, unexpected, misshapen and non-finite tensors.
    """
    check_weights(model.state_dict(), weights, f"{origin} does not fit {type(model).__name__}")
    model.load_state_dict(dict(weights))


def check_weights(expected: Mapping[str, Tensor], weights: Mapping[str, Tensor], complaint: str) -> None:
    """Compares keys and shapes, and looks for values that are not finite.

    Raises:
        InputError: the complaint with a report of missing, unexpected, misshapen and non-finite tensors.
    """
    shared = expected.keys() & weights.keys()
    report = {
        "missing": sorted(expected.keys() - weights.keys()),
        "unexpected": sorted(weights.keys() - expected.keys()),
        "wrong shape": sorted(
            f"{key} {tuple(weights[key].shape)} instead of {tuple(expected[key].shape)}"
            for key in shared
            if weights[key].shape != expected[key].shape
        ),
        "not finite": sorted(
            key
            for key in shared
            if weights[key].shape == expected[key].shape and not torch.isfinite(weights[key]).all()
        ),
    }
    problems = [
        f"{kind}: {', '.join(keys[:5])} ({len(keys)} in all)" for kind, keys in report.items() if keys
    ]
    if problems:
        raise InputError(f"{complaint}: " + "; ".join(problems))


def _storable(value: Tensor, half: bool) -> Tensor:
    value = value.detach().cpu().contiguous()
    return value.half() if half and value.is_floating_point() else value
