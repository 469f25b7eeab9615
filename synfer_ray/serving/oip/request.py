"""What an inference request asks, whichever way it came."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from synfer_ray.errors import nearest
from synfer_ray.serving.oip.tensors import Tensor
from synfer_ray.serving.refusal import Refusal, bad_request


@dataclass(frozen=True)
class InferRequest:
    """Attributes:
    id: the caller's own name for the request; the answer repeats it.
    inputs: the tensors by name.
    outputs: the names of the wanted tensors, in this order; empty for all that cost nothing extra.
    """

    id: str
    inputs: Mapping[str, Tensor]
    outputs: Sequence[str]


def by_name(tensors: Sequence[Tensor]) -> dict[str, Tensor]:
    """Raises:
    Refusal: two tensors have one name.
    """
    found = {tensor.name: tensor for tensor in tensors}
    if len(found) != len(tensors):
        raise bad_request("two inputs have the same name")
    return found


def check_model(name: str, version: str, model: str, versions: Sequence[str]) -> None:
    """Holds a request against the one model that is served; an empty version means any.

    Raises:
        Refusal: (404) it asks for another one.
    """
    if name != model:
        raise Refusal(404, f"unknown model {name[:100]!r}{nearest(name[:100], [model])}; served: {model}")
    if version and version not in versions:
        raise Refusal(404, f"unknown version {version[:100]!r} of {model}; served: {', '.join(versions)}")
