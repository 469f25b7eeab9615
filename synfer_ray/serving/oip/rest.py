"""The JSON form of inference requests and answers, with the binary tensor extension.

Source: `inference_rest.md` and `binary_data` of the Open Inference Protocol.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from synfer_ray.serving.oip.request import InferRequest, by_name
from synfer_ray.serving.oip.tensors import Tensor, from_raw, from_values, to_raw, to_values
from synfer_ray.serving.refusal import Refusal, bad_request

HEADER_LENGTH = "Inference-Header-Content-Length"
"""The HTTP header that says where the JSON ends and the tensors' bytes begin."""
SHARED_MEMORY = "shared_memory_region"


def read_request(
    body: bytes, header_length: str | None, max_json_bytes: int
) -> tuple[InferRequest, dict[str, bool]]:
    """Reads the body of an inference request.

    Args:
        header_length: the value of HEADER_LENGTH; None if all of the body is JSON.

    Returns:
        the request, and which outputs it wants in binary form, with the rule for the others under "".

    Raises:
        Refusal: the body is not such a request.
    """
    end = len(body) if header_length is None else _length(header_length, len(body))
    if end > max_json_bytes:
        raise Refusal(413, f"the JSON part has {end} bytes, at most {max_json_bytes} are read")
    fields = _object(_parse(body[:end]), "the request")
    request_id = fields.get("id", "")
    if not isinstance(request_id, str):
        raise bad_request("id is not a string")
    tail = memoryview(body)[end:]
    inputs = []
    for entry in _list(fields, "inputs"):
        tensor, tail = _input(_object(entry, "an input"), tail)
        inputs.append(tensor)
    if len(tail):
        raise bad_request(f"{len(tail)} bytes remain after the last input")
    binary = {"": _flag(_parameters(fields), "binary_data_output", False)}
    names = []
    for entry in _list(fields, "outputs", required=False):
        output = _object(entry, "an output")
        parameters = _parameters(output)
        if "classification" in parameters:
            raise bad_request("the classification extension is not served")
        names.append(_name(output, "an output"))
        binary[names[-1]] = _flag(parameters, "binary_data", binary[""])
    return InferRequest(request_id, by_name(inputs), names), binary


def write_response(
    request_id: str, model: str, version: str, outputs: Sequence[Tensor], binary: Mapping[str, bool]
) -> tuple[bytes, int | None]:
    """Writes the body of an answer; returns it with the length of its JSON part if tensors follow that."""
    entries: list[dict[str, Any]] = []
    tail = []
    for tensor in outputs:
        entry = {"name": tensor.name, "datatype": tensor.datatype, "shape": list(tensor.data.shape)}
        if binary.get(tensor.name, binary[""]):
            raw = to_raw(tensor)
            tail.append(raw)
            entries.append(entry | {"parameters": {"binary_data_size": len(raw)}})
        else:
            entries.append(entry | {"data": to_values(tensor)})
    fields = {"model_name": model, "model_version": version, "outputs": entries}
    text = json.dumps(fields | ({"id": request_id} if request_id else {}), allow_nan=False).encode()
    return b"".join([text, *tail]), len(text) if tail else None


def _input(entry: Mapping[str, Any], tail: memoryview) -> tuple[Tensor, memoryview]:
    name = _name(entry, "an input")
    parameters = _parameters(entry)
    if SHARED_MEMORY in parameters:
        raise bad_request(f"input {name!r}: shared memory is not served")
    datatype, shape = entry.get("datatype"), entry.get("shape")
    size = parameters.get("binary_data_size")
    if size is None:
        return from_values(name, datatype, shape, entry.get("data")), tail  # type: ignore[arg-type]
    if type(size) is not int or not 0 <= size <= len(tail):
        raise bad_request(
            f"input {name!r}: binary_data_size {str(size)[:40]} does not fit the {len(tail)} bytes left"
        )
    return from_raw(name, datatype, shape, tail[:size]), tail[size:]  # type: ignore[arg-type]


def _parse(text: bytes) -> Any:
    try:
        return json.loads(text.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise bad_request(f"the request is not JSON: {str(error)[:200]}") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _length(text: str, available: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 12 and int(text) <= available):
        raise bad_request(f"{HEADER_LENGTH} {text[:40]!r} does not fit a body of {available} bytes")
    return int(text)


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise bad_request(f"{what} is not a JSON object")
    return value


def _list(fields: Mapping[str, Any], key: str, required: bool = True) -> list[Any]:
    value = fields.get(key, None if required else [])
    if not isinstance(value, list):
        raise bad_request(f"{key} is not a list")
    return value


def _parameters(fields: Mapping[str, Any]) -> dict[str, Any]:
    return _object(fields.get("parameters", {}), "parameters")


def _name(fields: Mapping[str, Any], what: str) -> str:
    name = fields.get("name")
    if not isinstance(name, str):
        raise bad_request(f"{what} has no name")
    return name[:100]


def _flag(parameters: Mapping[str, Any], key: str, default: bool) -> bool:
    value = parameters.get(key, default)
    if not isinstance(value, bool):
        raise bad_request(f"{key} is not true or false")
    return value
