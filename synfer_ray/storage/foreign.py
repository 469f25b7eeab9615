"""Checkpoints of other people: safetensors or PyTorch pickles, read without running anything they hold.

A pickle goes through PyTorch's `weights_only` unpickler, which builds tensors and plain containers alone.
Training scripts also store objects of their own beside the weights, such as the `RecorderMeter` of POSTER++;
those in `DISCARDED` become empty placeholders, whatever the file says they are. All else is refused.
"""

import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from synfer_ray.errors import InputError
from synfer_ray.storage.weights import load_weights, read_weights

MAX_CHECKPOINT_BYTES = 4 * 2**30
DISCARDED = (
    "__main__.RecorderMeter",
    "__main__.RecorderMeter1",
    "argparse.Namespace",
    *(
        f"numpy.{module}.multiarray.{name}"
        for module in ("core", "_core")
        for name in ("_reconstruct", "scalar")
    ),
    "numpy.ndarray",
    "numpy.dtype",
)
"""Classes and functions, as pickles name them, that stand beside weights and become a `Placeholder`."""
STATES = ("state_dict", "model", "params_ema", "params")
"""Keys under which training scripts store the weights, in the order they are looked for."""


class Placeholder:
    """What an object of `DISCARDED` becomes: it takes any arguments and any state, and keeps none."""

    def __new__(cls, *_: Any) -> "Placeholder":
        """Takes what the original was made of."""
        return object.__new__(cls)

    def __init__(self, *_: Any) -> None: ...

    def __setstate__(self, _: Any) -> None: ...


@dataclass(frozen=True)
class KeyReport:
    """What became of the keys of a foreign checkpoint that was loaded; a mismatch is an error instead.

    Attributes:
        origin: the file.
        loaded: number of tensors that the model took.
        unused: keys that the file has and the model's forward pass never needs.
    """

    origin: str
    loaded: int
    unused: tuple[str, ...]

    def __str__(self) -> str:
        groups = sorted({".".join(key.split(".")[:2]) for key in self.unused})
        unused = f" ({', '.join(groups)})" if groups else ""
        return (
            f"{self.origin}: loaded {self.loaded} tensors, missing 0, unexpected 0, "
            f"not needed {len(self.unused)}{unused}"
        )


def read_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Returns the tensors of a checkpoint by name, on the CPU, without the prefix `module.`.

    Raises:
        InputError: the file is missing, too large, damaged, or holds anything but tensors and plain data.
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"missing model file: {path}")
    if path.stat().st_size > MAX_CHECKPOINT_BYTES:
        raise InputError(f"{path} is larger than {MAX_CHECKPOINT_BYTES >> 20} MiB")
    if path.suffix == ".safetensors":
        return _named_tensors(read_weights(path), path)
    content = _unpickle(path)
    if isinstance(content, Mapping):
        content = next((content[key] for key in STATES if isinstance(content.get(key), Mapping)), content)
    return _named_tensors(content, path)


def import_weights(
    model: nn.Module, weights: Mapping[str, Tensor], origin: str, unused: Iterable[str] = ()
) -> KeyReport:
    """Copies a published checkpoint into `model`: every key must match, save those that start with `unused`.

    Args:
        unused: prefixes of keys that the published architecture stores but its forward pass never reads.

    Raises:
        InputError: with the first keys that are missing, unexpected, misshapen or not finite.
    """
    prefixes = tuple(unused)
    aside = tuple(key for key in weights if key.startswith(prefixes) and prefixes)
    needed = {key: value for key, value in weights.items() if key not in set(aside)}
    load_weights(model, needed, origin)
    return KeyReport(origin, len(needed), aside)


def _unpickle(path: Path) -> Any:
    _refuse_bombs(path)
    stand_ins = [(Placeholder, name) for name in DISCARDED]
    try:
        with torch.serialization.safe_globals(stand_ins):  # type: ignore[arg-type]
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a hostile or damaged file fails in as many ways as there are opcodes
        reason = str(error).strip().splitlines() or [type(error).__name__]
        culprit = next((line for line in reason if "GLOBAL" in line), reason[0])
        raise InputError(f"{path} is no checkpoint of plain tensors: {culprit.strip()[:300]}") from error


def _refuse_bombs(path: Path) -> None:
    """PyTorch writes zip entries uncompressed and apart: others can only mean to fill the memory."""
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED:
            raise InputError(f"{path} is no checkpoint of plain tensors: {entry.filename} is compressed")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise InputError(f"{path} is no checkpoint of plain tensors: its entries overlap")


def _named_tensors(content: Any, path: Path) -> dict[str, Tensor]:
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{path} holds no weights by name but a {type(content).__name__}")
    if all(
        isinstance(part, Mapping) for part in content.values()
    ):  # several models, as in IP-Adapter's files
        content = {f"{name}.{key}": value for name, part in content.items() for key, value in part.items()}
    strangers = [key for key, value in content.items() if not _is_plain(value)]
    if strangers:
        raise InputError(
            f"{path} holds no weights by name: {', '.join(map(repr, strangers[:5]))} is no plain tensor "
            f"({len(strangers)} of {len(content)} keys)"
        )
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def _is_plain(value: Any) -> bool:
    return isinstance(value, Tensor) and value.layout is torch.strided and value.device.type == "cpu"
