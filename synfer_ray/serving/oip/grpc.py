"""The protobuf form of inference requests and answers, and the service as gRPC servers know it.

The proxy passes messages on as bytes; only the replica reads them, and can say what is wrong with them.
`inference_pb2.py` is made from `inference.proto`, in an environment of its own:

    pip install grpcio-tools==1.73.1
    python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. synfer_ray/serving/oip/inference.proto

A runtime takes what a generator of its own or of the former major version wrote; this one is of version 6.31.
"""

from collections.abc import Sequence
from typing import Any

from synfer_ray.serving.oip import inference_pb2 as messages
from synfer_ray.serving.oip.request import InferRequest, by_name
from synfer_ray.serving.oip.tensors import Tensor, bytes_array, element_count, from_raw, from_values, to_raw
from synfer_ray.serving.refusal import bad_request

SERVICE = "inference.GRPCInferenceService"
METHODS = (
    "ServerLive", "ServerReady", "ServerMetadata", "ModelReady", "ModelMetadata", "ModelConfig", "ModelInfer",
)  # fmt: skip
CONTENTS = {"BYTES": "bytes_contents", "FP32": "fp32_contents", "UINT8": "uint_contents"}
"""Where a message holds the values of a tensor that came without raw bytes."""


def add_inference_service(servicer: Any, server: Any) -> None:
    """Adds the service to a gRPC server: a `grpc_servicer_functions` entry of Ray Serve.

    Without serializers the messages of `servicer` are bytes.
    """
    import grpc

    handlers = {name: grpc.unary_unary_rpc_method_handler(getattr(servicer, name)) for name in METHODS}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))


def read_request(message: messages.ModelInferRequest) -> InferRequest:
    """Reads an inference request.

    Raises:
        Refusal: its parts do not fit together.
    """
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise bad_request(f"{len(message.inputs)} inputs came with {len(raw)} raw contents")
    inputs = []
    for place, entry in enumerate(message.inputs):
        name, shape = entry.name[:100], list(entry.shape)
        if any(key.startswith("shared_memory") for key in entry.parameters):
            raise bad_request(f"input {name!r}: shared memory is not served")
        if not raw:
            inputs.append(_from_contents(name, entry.datatype, shape, entry.contents))
        elif entry.HasField("contents"):
            raise bad_request(f"input {name!r} has contents besides the raw contents")
        else:
            inputs.append(from_raw(name, entry.datatype, shape, raw[place]))
    if any("classification" in output.parameters for output in message.outputs):
        raise bad_request("the classification extension is not served")
    return InferRequest(message.id, by_name(inputs), [output.name[:100] for output in message.outputs])


def write_response(
    request_id: str, model: str, version: str, outputs: Sequence[Tensor]
) -> messages.ModelInferResponse:
    """Writes an answer; its tensors are raw bytes, as clients of Triton expect."""
    entry = messages.ModelInferResponse.InferOutputTensor
    return messages.ModelInferResponse(
        model_name=model,
        model_version=version,
        id=request_id,
        outputs=[entry(name=o.name, datatype=o.datatype, shape=o.data.shape) for o in outputs],
        raw_output_contents=[to_raw(tensor) for tensor in outputs],
    )


def _from_contents(name: str, datatype: str, shape: list[int], contents: Any) -> Tensor:
    count = element_count(name, datatype, shape)
    values = getattr(contents, CONTENTS[datatype])
    if len(values) != count:
        raise bad_request(f"input {name!r}: shape {shape} has {count} elements, but {len(values)} came")
    if datatype == "BYTES":
        return Tensor(name, bytes_array(list(values)).reshape(shape))
    return from_values(name, datatype, shape, list(values))
