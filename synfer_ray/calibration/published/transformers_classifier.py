"""Image classifiers of the transformers library: a folder or hub id, safetensors, no code of the repository.

torchvision is not needed: the image processor's settings become `Pixels`, which a guide can be differentiated
through, and one picture goes through both, so that a processor that does more is refused.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from synfer_ray.calibration.published.classifier import NamedClassifier, settle_order
from synfer_ray.calibration.published.pixels import Pixels
from synfer_ray.errors import InputError
from synfer_ray.storage.hub import local_folder

FILTERS = {Image.Resampling.BILINEAR: "bilinear", Image.Resampling.BICUBIC: "bicubic", None: "bilinear"}
TOLERANCE = 0.05
"""Largest mean difference between the processor's pixels and ours, in standardised units."""


class TransformersClassifier(nn.Module):
    """A classifier with its processor: images [B, 3, H, W] in [-1, 1] -> logits [B, classes]."""

    def __init__(self, pixels: Pixels, model: nn.Module) -> None:
        super().__init__()
        self.pixels = pixels
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits in the order of the model's id2label."""
        return self.model(pixel_values=self.pixels(images)).logits


def load_transformers(folder_or_id: str, label_order: str = "") -> NamedClassifier:
    """Loads an image classifier; its classes are mapped by the names in `id2label`, or by `label_order`.

    Raises:
        InputError: there is none, it needs code or pickles, a weight is missing, misshapen or not finite, its
            classes are not expressions, or its processor does more than resize, crop and scale.
    """
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    folder = local_folder(folder_or_id)
    try:
        model, loaded = AutoModelForImageClassification.from_pretrained(
            folder,
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are named below
            torch_dtype=torch.float32,
        )
        processor = AutoImageProcessor.from_pretrained(
            folder, backend="pil", trust_remote_code=False, local_files_only=True
        )
    except Exception as error:  # a hostile configuration fails in as many ways as there are layers
        reason = " ".join(str(error).split())[:300]
        raise InputError(f"{folder_or_id} is no image classifier that can be loaded: {reason}") from error
    _check(model, loaded, folder_or_id)
    names = [model.config.id2label[index] for index in range(model.config.num_labels)]
    order = settle_order("transformers", folder_or_id, len(names), label_order or names)
    network = TransformersClassifier(pixels_of(processor, folder_or_id), model)
    return NamedClassifier(network, order).eval()


def pixels_of(processor: Any, origin: str) -> Pixels:
    """Returns what an image processor does, as a differentiable module.

    Raises:
        InputError: it does something else.
    """
    settings = processor.to_dict()
    scale = settings.get("rescale_factor", 1 / 255) * 255 if settings.get("do_rescale") else 255.0
    normalise = settings.get("do_normalize")
    mean = np.array(settings["image_mean"] if normalise else [0.0] * 3) / scale
    std = np.array(settings["image_std"] if normalise else [1.0] * 3) / scale
    size, crop = _size_and_crop(settings, origin)
    pixels = Pixels(
        size,
        crop,
        mean=mean.tolist(),
        std=std.tolist(),
        mode=FILTERS.get(settings.get("resample"), "bilinear"),
    )
    _compare(processor, pixels, origin)
    return pixels


def _size_and_crop(
    settings: dict[str, Any], origin: str
) -> tuple[int | tuple[int, int] | None, tuple[int, int] | None]:
    box = settings.get("crop_size") if settings.get("do_center_crop") else None
    crop = (box["height"], box["width"]) if box else None
    if not settings.get("do_resize"):
        return None, crop
    size = {key: value for key, value in settings["size"].items() if value is not None}
    if size.keys() == {"height", "width"}:
        return (size["height"], size["width"]), crop
    if size.keys() == {"shortest_edge"}:
        edge = size["shortest_edge"]
        if settings.get("crop_pct") and edge < 384:  # ConvNeXT resizes to more and cuts the middle
            return int(edge / settings["crop_pct"]), (edge, edge)
        return edge, crop
    raise InputError(f"{origin}: the image processor's size {size} is not supported")


def _compare(processor: Any, pixels: Pixels, origin: str) -> None:
    """Sends one smooth picture through both."""
    coarse = np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    picture = Image.fromarray(coarse).resize((192, 192), Image.Resampling.BICUBIC)
    theirs = torch.as_tensor(np.asarray(processor(picture, return_tensors="np")["pixel_values"]))
    ours = pixels(torch.from_numpy(np.asarray(picture, np.float32)).permute(2, 0, 1)[None] / 127.5 - 1)
    if theirs.shape != ours.shape or (theirs - ours).abs().mean() > TOLERANCE * ours.std().clamp(min=1e-6):
        raise InputError(
            f"{origin}: {type(processor).__name__} does more than resize, crop and scale "
            f"({list(theirs.shape)} where {list(ours.shape)} was expected); convert the model to ONNX instead"
        )


def _check(model: nn.Module, loaded: dict[str, Any], origin: str | Path) -> None:
    problems = {
        "missing": sorted(map(str, loaded["missing_keys"])),
        "unexpected": sorted(map(str, loaded["unexpected_keys"])),
        "wrong shape": sorted(map(str, loaded["mismatched_keys"])),
        "not finite": sorted(
            name for name, value in model.state_dict().items() if not value.isfinite().all()
        ),
    }
    found = [f"{kind}: {', '.join(keys[:5])} ({len(keys)} in all)" for kind, keys in problems.items() if keys]
    if found:
        raise InputError(f"{origin} does not fit {type(model).__name__}: " + "; ".join(found))
    print(f"{origin}: loaded {len(model.state_dict())} tensors, missing 0, unexpected 0")
