"""What the served model is called, what it takes and what it gives: the one place that says so."""

import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from synfer_ray.config import ServeConfig
from synfer_ray.errors import InputError, choose
from synfer_ray.serving.refusal import bad_request
from synfer_ray.storage.fingerprint import canonical_json, fingerprint
from synfer_ray.taxonomy.expressions import EXPRESSIONS

MODEL = "calibrator"
VERSION = "1"
SERVER = "synfer-ray"
PLATFORM = "synfer_ray"
EXTENSIONS = ("binary_tensor_data", "model_configuration")
DATA_TYPES = {"BYTES": "TYPE_STRING", "UINT8": "TYPE_UINT8", "FP32": "TYPE_FP32"}
"""The names that a model configuration has for datatypes."""
ATTENTION = "attention"
"""The output that is made only on request: it is a picture for each face."""


class TensorSpec(NamedTuple):
    """An input or output; -1 stands for any size."""

    name: str
    datatype: str
    shape: tuple[int, ...]


INPUTS = (
    TensorSpec("image", "BYTES", (-1,)),
    TensorSpec("pixels", "UINT8", (-1, -1, -1, 3)),
    TensorSpec("label", "BYTES", (-1,)),
)
"""`image` (PNG, JPEG, WebP or BMP files) or `pixels` (RGB; also as FP32 in 0..1), and labels to vote on."""


def outputs(config: ServeConfig) -> tuple[TensorSpec, ...]:
    """Returns the outputs of a server with these voters."""
    classes = len(EXPRESSIONS)
    return (
        TensorSpec("label", "BYTES", (-1,)),
        TensorSpec("probabilities", "FP32", (-1, classes)),
        TensorSpec("voters", "FP32", (-1, len(config.voters), classes)),
        TensorSpec("agreement", "FP32", (-1,)),
        TensorSpec("decision", "BYTES", (-1,)),
        TensorSpec("reason", "BYTES", (-1,)),
        TensorSpec(ATTENTION, "BYTES", (-1,)),
    )


def wanted_outputs(names: Sequence[str], config: ServeConfig) -> list[str]:
    """Returns the outputs to make: the named ones, or all but the attention.

    Raises:
        Refusal: there is no such output, or one is named twice.
    """
    known = [spec.name for spec in outputs(config)]
    if len(set(names)) != len(names):
        raise bad_request("an output is named twice")
    try:
        return [choose(name, known, "output") for name in names] or [n for n in known if n != ATTENTION]
    except InputError as error:
        raise bad_request(str(error)) from error


def server_metadata() -> dict[str, Any]:
    """Returns the server's metadata as the protocol has it."""
    return {"name": SERVER, "version": importlib.metadata.version(SERVER), "extensions": list(EXTENSIONS)}


def model_metadata(config: ServeConfig, models: Mapping[str, str | None]) -> dict[str, Any]:
    """Returns the model's metadata; `parameters` has names for the places in its outputs."""
    return {
        "name": MODEL,
        "versions": [VERSION],
        "platform": PLATFORM,
        "inputs": [spec._asdict() for spec in INPUTS],
        "outputs": [spec._asdict() for spec in outputs(config)],
        "parameters": parameters(config, models),
    }


def model_config(config: ServeConfig, models: Mapping[str, str | None]) -> dict[str, Any]:
    """Returns the model's configuration as Triton has it; shapes include the batch (`max_batch_size` 0)."""

    def entry(spec: TensorSpec) -> dict[str, Any]:
        return {"name": spec.name, "data_type": DATA_TYPES[spec.datatype], "dims": list(spec.shape)}

    return {
        "name": MODEL,
        "platform": PLATFORM,
        "backend": PLATFORM,
        "max_batch_size": 0,
        "input": [entry(spec) | {"optional": True} for spec in INPUTS],
        "output": [entry(spec) for spec in outputs(config)],
        "parameters": {key: {"string_value": value} for key, value in parameters(config, models).items()},
    }


def parameters(config: ServeConfig, models: Mapping[str, str | None]) -> dict[str, str]:
    """Returns what a client needs to know: names with commas, limits, the rule of the vote, and fingerprints.

    As long as `settings` and the models' fingerprints stay, answers stay.
    """
    deciding = {"experts": config.experts, "vote": config.vote, "image_size": config.image_size}
    return {
        "expressions": ",".join(EXPRESSIONS),
        "voters": ",".join(config.voters),
        "max_faces": str(config.limits.max_faces),
        "max_pixels": str(config.limits.max_pixels),
        "max_body_bytes": str(config.limits.max_body_bytes),
        "vote": canonical_json(config.vote),
        "settings": fingerprint({key: canonical_json(value) for key, value in deciding.items()}),
        **{f"fingerprint_{name}": digits for name, digits in models.items() if digits},
    }
