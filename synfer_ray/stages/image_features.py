"""What image sets are compared by: the features of an expert, and small standardised pixels."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from synfer_ray.calibration.experts import resize
from synfer_ray.calibration.networks import FERClassifier
from synfer_ray.config import EvaluateConfig
from synfer_ray.errors import InputError
from synfer_ray.evaluation.image_sets import unit_pixels
from synfer_ray.faces.images import decode_image, resize_square
from synfer_ray.storage.bundle import expert_spec, find_bundle
from synfer_ray.storage.weights import load_model

PIXELS = 32
"""Side of the images that are compared pixel by pixel."""


class ImageFeatures:
    """A Ray actor that holds the classifier `config.features` of a bundle.

    Raises:
        InputError: the bundle has no such classifier.
    """

    def __init__(self, config: EvaluateConfig):
        torch.set_num_threads(1)
        spec = expert_spec(config.features, find_bundle(config.bundle), {})
        if spec.kind != "bundle":
            raise InputError(f"features={config.features}: a classifier of the bundle is needed")
        self.model = load_model(FERClassifier, spec.path)
        self.image_size = config.image_size

    @torch.inference_mode()
    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Returns `features` [B, D], `pixels` [B, P] and `labels` [B], assigned ones first."""
        images = self.decode(batch)
        small = resize(images.numpy(), PIXELS, grey=True)[:, 0]
        return {
            "features": self.model.features(images).numpy(),
            "pixels": unit_pixels(small),
            "labels": batch["assigned_label" if "assigned_label" in batch else "label"],
        }

    def decode(self, batch: dict[str, Any]) -> Tensor:
        """Encoded images -> [B, 3, H, W] in [-1, 1]."""
        images = [resize_square(decode_image(image["bytes"]), self.image_size) for image in batch["image"]]
        pixels = np.stack([np.asarray(image, np.float32) for image in images]) / 127.5 - 1
        return torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))


class Reconstruction(ImageFeatures):
    """A Ray actor: the features of what the bundle's autoencoder leaves of images."""

    def __init__(self, config: EvaluateConfig):
        from diffusers import AutoencoderKL

        super().__init__(config)
        self.vae = AutoencoderKL.from_pretrained(find_bundle(config.bundle) / "vae").float().eval()

    @torch.inference_mode()
    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Returns `features` [B, D]."""
        latents = self.vae.encode(self.decode(batch)).latent_dist.mean
        return {"features": self.model.features(self.vae.decode(latents).sample.clamp(-1, 1)).numpy()}
