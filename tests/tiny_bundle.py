"""A whole model bundle in miniature: real classes, random weights, images of 32 pixels."""

from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from synfer_ray.calibration.feranno import Annotator, FERAnno
from synfer_ray.calibration.networks import FERClassifier
from synfer_ray.storage.au_prior import write_au_prior
from synfer_ray.storage.weights import save_model
from synfer_ray.taxonomy.au_priors import sample_action_units
from synfer_ray.taxonomy.expressions import EXPRESSIONS
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
    rng = np.random.default_rng(seed)
    readings = {name: np.stack([sample_action_units(name, rng) for _ in range(3)]) for name in EXPRESSIONS}
    write_au_prior(folder / "au_prior", readings)
    (folder / "layouts").mkdir()
    save_file({"latents": torch.randn(5, 4, 8, 8).half()}, folder / "layouts" / "latents.safetensors")
    return folder
