"""A whole model bundle in miniature: real classes, random weights, images of 32 pixels."""

from pathlib import Path

import torch
from safetensors.torch import save_file

from synfer_ray.calibration.feranno import Annotator, FERAnno
from synfer_ray.calibration.networks import FERClassifier
from synfer_ray.storage.weights import save_model
from tests.tiny import tiny_components

EXPERTS = {
    "guide": {"architecture": "residual", "channels": (8, 8)},
    "residual": {"architecture": "residual", "channels": (8, 16)},
    "separable": {"architecture": "separable", "channels": (8, 8, 16)},
}


def save_tiny_bundle(folder: Path, seed: int = 0) -> Path:
    """Writes a bundle that `generate` and `calibrate` take."""
    components = tiny_components(seed=seed)
    for part in ("unet", "vae", "text_encoder", "tokenizer", "scheduler"):
        getattr(components, part).save_pretrained(folder / part)
    save_model(components.adapter, folder / "au_adapter")
    torch.manual_seed(seed)
    features = Annotator(components, torch.nn.Identity()).features(torch.zeros(1, 4, 8, 8))
    save_model(FERAnno.for_features(features, width=16, heads=2), folder / "feranno")
    for number, (name, settings) in enumerate(EXPERTS.items()):
        torch.manual_seed(number)
        save_model(FERClassifier(**settings, input_size=32), folder / "experts" / name)
    (folder / "layouts").mkdir()
    save_file({"latents": torch.randn(5, 4, 8, 8).half()}, folder / "layouts" / "latents.safetensors")
    return folder
