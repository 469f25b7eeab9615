"""Faces as latents: Ray Data actors that encode each face once, in the views that a training wants of it."""

import zlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from synfer_ray.faces.images import resize_square
from synfer_ray.prompts.cues import without_cues
from synfer_ray.training.augment import (
    LOOSE_CROP,
    from_uint8,
    random_affine,
    random_flip,
    random_light,
)
from synfer_ray.training.data import mirror_text, tokenize
from synfer_ray.training.experts import mirrored_indices

PIXELS_AT_ONCE = 128 * 64 * 64
"""What the autoencoder encodes in one pass: 128 images of `fer64`, two of Stable Diffusion."""


class FaceEncoder:
    """The bundle's autoencoder, for faces that are first resized to `image_size` pixels."""

    def __init__(self, bundle: str, image_size: int):
        from diffusers import AutoencoderKL

        from synfer_ray.diffusion.components import load_part

        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.vae = load_part(AutoencoderKL, Path(bundle) / "vae", torch.float32).to(device)
        self.image_size = image_size

    def encode(self, images: Tensor) -> np.ndarray:
        """Encodes images [B,3,H,W]; the latents are scaled by the autoencoder's scaling factor, float16."""
        parts = images.split(max(1, PIXELS_AT_ONCE // self.image_size**2))
        with torch.no_grad():
            means = [self.vae.encode(part.to(self.vae.device)).latent_dist.mean for part in parts]
        return (torch.cat(means) * self.vae.config.scaling_factor).half().cpu().numpy()

    def images(self, faces: np.ndarray) -> Tensor:
        """Turns uint8 faces [B,H,W,3] into images [B,3,size,size] in [-1,1]."""
        if faces.shape[1:3] != (self.image_size, self.image_size):
            faces = np.stack(
                [np.asarray(resize_square(Image.fromarray(face), self.image_size)) for face in faces]
            )
        return from_uint8(torch.from_numpy(np.array(faces)))


class LatentEncoder(FaceEncoder):
    """Each face and its mirror image as `latents`, with tokens and action units to match."""

    def __init__(self, bundle: str, image_size: int):
        from transformers import CLIPTokenizer

        super().__init__(bundle, image_size)
        self.tokenizer = CLIPTokenizer.from_pretrained(f"{bundle}/tokenizer")

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Doubles the batch."""
        images = self.images(batch["image"])
        captions = [*batch["caption"], *map(mirror_text, batch["caption"])]
        return {
            "sample_id": np.concatenate([batch["sample_id"], [f"{name}~" for name in batch["sample_id"]]]),
            "latents": self.encode(torch.cat([images, images.flip(-1)])),
            "input_ids": tokenize(self.tokenizer, captions),
            "uncued_ids": tokenize(self.tokenizer, [without_cues(caption) for caption in captions]),
            "action_units": np.concatenate(
                [batch["action_units"], batch["action_units"][:, mirrored_indices()]]
            ),
            "label_probs": np.concatenate([batch["label_probs"], batch["label_probs"]]),
        }


class ViewEncoder(FaceEncoder):
    """Each face as it is and in `views` random views as `latents`: mirrored, moved, turned, relit.

    A calibrator also meets faces that nobody aligned.
    """

    def __init__(self, bundle: str, image_size: int, views: int):
        super().__init__(bundle, image_size)
        self.views = views

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Makes 1 + `views` rows of each."""
        generator = torch.Generator().manual_seed(zlib.crc32("".join(batch["sample_id"]).encode()))
        images = self.images(batch["image"])
        looks = [images, *(self.look(images, generator) for _ in range(self.views))]
        return {
            "sample_id": np.concatenate(
                [[f"{name}~{view}" for name in batch["sample_id"]] for view in range(len(looks))]
            ),
            "latents": self.encode(torch.cat(looks)),
            "label_probs": np.concatenate([batch["label_probs"]] * len(looks)),
        }

    def look(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Another view of each image [B,3,H,W]."""
        return random_light(
            random_affine(random_flip(images, generator)[0], generator, **LOOSE_CROP), generator
        )
