"""AU adapters between programs: FineFace and IP-Adapter files in, diffusers' attention processors both ways.

FineFace (github.com/tvaranka/fineface, Apache-2.0) names its weights after diffusers' attention processors;
`save_processors` writes ours under the same names. IP-Adapter (Apache-2.0) numbers the processors instead,
and only the odd ones, the cross-attention blocks, have weights.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file
from torch import Tensor

from synfer_ray.diffusion.attention import DecoupledAttnProcessor, cross_attention_blocks
from synfer_ray.diffusion.au_adapter import AUAdapter
from synfer_ray.diffusion.au_encoder import FINEFACE_HIDDEN, FINEFACE_UNITS
from synfer_ray.errors import InputError
from synfer_ray.storage.foreign import KeyReport, read_checkpoint
from synfer_ray.storage.weights import check_weights
from synfer_ray.taxonomy.action_units import ACTION_UNITS

if TYPE_CHECKING:
    from diffusers import UNet2DConditionModel

CONFIG, PROCESSORS, ENCODER = "au_adapter.json", "attn_processors.safetensors", "au_encoder.safetensors"


def import_fineface(folder: str | Path, unet: "UNet2DConditionModel") -> AUAdapter:
    """Reads FineFace's `attn_processors.ckpt` and `au_encoder.ckpt`, made for Stable Diffusion 2.1.

    Its LoRA, `pytorch_lora_weights.safetensors`, is no part of the adapter: `unet.load_lora_adapter` takes
    it. FineFace's "no condition" is the token of a face at rest, which becomes the null token here.

    Raises:
        InputError: a file is missing, unsafe or damaged, or was made for a U-Net of another shape.
    """
    keys = _processor_keys(unet) | {
        f"encoder.au_encoder.{name}": f"au_encoder.{name}" for name in ("weight", "bias")
    }
    folder = Path(folder)
    weights = read_checkpoint(folder / "attn_processors.ckpt") | read_checkpoint(folder / "au_encoder.ckpt")
    if _shape(unet)[0] < len(FINEFACE_UNITS) + FINEFACE_HIDDEN:
        raise InputError(f"FineFace's token does not fit text tokens of width {_shape(unet)[0]}")
    adapter = AUAdapter(*_shape(unet), num_tokens=1, supported=FINEFACE_UNITS, encoder="fineface")
    return _fill(adapter, weights, keys, str(folder))


def import_ip_adapter(
    path: str | Path, unet: "UNet2DConditionModel", units: Sequence[str] = ACTION_UNITS
) -> AUAdapter:
    """Reads an adapter in IP-Adapter's layout that was trained on action units instead of image features.

    The projection's own shape tells the number of tokens; diffusers would assume four. "No condition" is the
    projection of zeros.

    Args:
        units: names of the inputs, in the adapter's order.

    Raises:
        InputError: the file is missing, unsafe or damaged, is an adapter of images, has a projection of
            another kind, or was made for a U-Net of another shape.
    """
    weights = read_checkpoint(path)
    width, channels = _shape(unet)
    projection = weights.get("image_proj.proj.weight")
    if projection is None or projection.ndim != 2:
        kinds = ", ".join(sorted(key for key in weights if key.startswith("image_proj."))[:5]) or "none"
        raise InputError(
            f"{path}: a projection image_proj.proj.weight with image_proj.norm is needed, but it has {kinds}"
        )
    outputs, inputs = projection.shape
    if inputs != len(units):
        raise InputError(
            f"{path} reads {inputs} numbers, not {len(units)} action units: "
            "it is an adapter of images, or one of other units"
        )
    if outputs % width:
        raise InputError(
            f"{path} was made for another model: {outputs} is no multiple of the text width {width}"
        )
    keys = {f"encoder.{name}": f"image_proj.{name}" for name in _PROJECTION}
    numbers = [list(unet.attn_processors).index(name) for name in processor_names(unet)]
    for index, number in enumerate(numbers):
        keys |= {
            f"layers.{index}.to_{part}.weight": f"ip_adapter.{number}.to_{part}_ip.weight" for part in "kv"
        }
    adapter = AUAdapter(width, channels, num_tokens=outputs // width, supported=units, encoder="projection")
    return _fill(adapter, weights, keys, str(path))


def save_processors(unet: "UNet2DConditionModel", folder: str | Path) -> None:
    """Writes the adapter that is attached to `unet` by the names of diffusers' `unet.attn_processors`.

    Raises:
        InputError: none is attached.
    """
    adapter = attached_adapter(unet)
    state = {key: value.detach().cpu().contiguous() for key, value in adapter.state_dict().items()}
    keys = _processor_keys(unet)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / CONFIG).write_text(json.dumps(adapter.config, indent=2) + "\n")
    save_file({foreign: state[ours] for ours, foreign in keys.items()}, folder / PROCESSORS)
    save_file({key: value for key, value in state.items() if key not in keys}, folder / ENCODER)


def load_processors(unet: "UNet2DConditionModel", folder: str | Path) -> AUAdapter:
    """Reads what `save_processors` wrote and makes it `unet`'s attention processors.

    Raises:
        InputError: a file is missing or damaged, or was made for a U-Net of another shape.
    """
    folder = Path(folder)
    try:
        adapter = AUAdapter(**json.loads((folder / CONFIG).read_text()))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{folder / CONFIG} does not describe an AU adapter: {error}") from error
    keys = {key: key for key in adapter.state_dict()} | _processor_keys(unet)
    _fill(
        adapter, read_checkpoint(folder / PROCESSORS) | read_checkpoint(folder / ENCODER), keys, str(folder)
    )
    adapter.attach(unet)
    return adapter


def attached_adapter(unet: "UNet2DConditionModel") -> AUAdapter:
    """Returns the adapter that `unet`'s attention processors use.

    Raises:
        InputError: there is none.
    """
    for processor in unet.attn_processors.values():
        if isinstance(processor, DecoupledAttnProcessor) and processor.adapter is not None:
            return processor.adapter
    raise InputError("no AU adapter is attached to this U-Net")


def processor_names(unet: "UNet2DConditionModel") -> list[str]:
    """Returns diffusers' names of the cross-attention processors, in the order of the adapter's layers."""
    return [f"{name}.processor" for name, _ in cross_attention_blocks(unet)]


_PROJECTION = ("proj.weight", "proj.bias", "norm.weight", "norm.bias")


def _processor_keys(unet: "UNet2DConditionModel") -> dict[str, str]:
    return {
        f"layers.{index}.to_{part}.weight": f"{name}.au_to_{part}.weight"
        for index, name in enumerate(processor_names(unet))
        for part in "kv"
    }


def _shape(unet: "UNet2DConditionModel") -> tuple[int, list[int]]:
    blocks = [attention for _, attention in cross_attention_blocks(unet)]
    return blocks[0].cross_attention_dim, [attention.inner_dim for attention in blocks]


def _fill(
    adapter: AUAdapter, weights: Mapping[str, Tensor], keys: Mapping[str, str], origin: str
) -> AUAdapter:
    """Loads foreign weights by our key -> foreign key; a null token that the file lacks is that of zeros."""
    state = adapter.state_dict()
    keys = {ours: foreign for ours, foreign in keys.items() if ours in state}
    expected = {foreign: state[ours] for ours, foreign in keys.items()}
    check_weights(expected, weights, f"{origin} does not fit this U-Net")
    adapter.load_state_dict(state | {ours: weights[foreign] for ours, foreign in keys.items()})
    if "null" not in keys:
        with torch.no_grad():
            adapter.null.copy_(adapter.encoder(torch.zeros(1, 2 * len(ACTION_UNITS)))[0])
    print(KeyReport(origin, len(weights), ()))
    return adapter.eval()
