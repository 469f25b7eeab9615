"""Sharpening the decoder: the encoder stays, and with it the latents and all that learns from them.

Absolute errors alone make eyes and mouths blur, as their average is the safest answer. Here the decoder also
has to repeat what an expression classifier sees, and to pass a patch critic (Esser et al. 2021, Sec. 3.1).
"""

from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from synfer_ray.calibration.networks import FERClassifier, prepare
from synfer_ray.training.augment import from_uint8, random_affine, random_flip
from synfer_ray.training.autoencoder import reconstruction_loss
from synfer_ray.training.loop import Batch, Objective
from synfer_ray.training.saving import save_half

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

PERCEPTUAL_WEIGHT = 0.2
ADVERSARIAL_WEIGHT = 0.1


class DecoderObjective(Objective):
    """Reconstruction of the `image` column (uint8 [B,H,W,3]) by the decoder alone.

    Args:
        vae: the autoencoder; its encoder is not changed.
        classifier: an expert, whose feature maps are compared.
    """

    def __init__(self, vae: "AutoencoderKL", classifier: FERClassifier):
        super().__init__()
        self.vae = vae.requires_grad_(False)
        self.vae.decoder.requires_grad_(True)
        self.vae.post_quant_conv.requires_grad_(True)
        self.classifier = classifier.requires_grad_(False)
        self.critic = patch_critic()

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Pixels, edges and features; in training also the critic's opinion, and the critic's own loss."""
        images = from_uint8(batch["image"])
        if self.training:
            images = random_affine(random_flip(images, generator)[0], generator)
        with torch.no_grad():
            posterior = self.vae.encode(images).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator, device=images.device)
        restored = self.vae.decode(posterior.mean + posterior.std * noise).sample
        pixel, edge = reconstruction_loss(restored, images)
        perceptual = self.feature_distance(restored, images)
        loss = pixel + edge + PERCEPTUAL_WEIGHT * perceptual
        figures = {"pixel_l1": pixel.item(), "perceptual": perceptual.item()}
        if self.training:
            frozen = {name: value.detach() for name, value in self.critic.named_parameters()}
            doubt = -functional_call(self.critic, frozen, restored).mean()
            critic_loss = hinge_loss(self.critic(images), self.critic(restored.detach()))
            loss = loss + ADVERSARIAL_WEIGHT * doubt + critic_loss
            figures |= {"critic": critic_loss.item()}
        return loss, figures

    def feature_distance(self, restored: Tensor, images: Tensor) -> Tensor:
        """Mean absolute difference of the classifier's feature maps, averaged over its layers."""
        network: Any = self.classifier.eval().network  # its batch statistics are not to learn here
        side = network.config["input_size"]
        states, wanted = prepare(restored, side), prepare(images, side)
        distances = []
        for layer in network.trunk:
            states, wanted = layer(states), layer(wanted)
            distances.append(F.l1_loss(states, wanted) / (wanted.abs().mean() + 1e-4))
        return torch.stack(distances).mean()

    def export(self, folder: Path) -> None:
        """Writes `vae/` of a diffusers pipeline, in half precision."""
        save_half(self.vae, folder)


def patch_critic(width: int = 32) -> nn.Module:
    """Judges overlapping patches of images [B,3,H,W]: above zero real, below restored (Isola et al. 2017)."""
    layers: list[nn.Module] = []
    channels = [3, width, 2 * width, 4 * width]
    for (a, b), stride in zip(pairwise(channels), (2, 2, 1)):
        layers += [nn.Conv2d(a, b, 4, stride, padding=1), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(channels[-1], 1, 4, padding=1))


def hinge_loss(real: Tensor, restored: Tensor) -> Tensor:
    """The critic's loss: real patches are to score above 1, restored ones below -1 (Lim and Ye 2017)."""
    return F.relu(1 - real).mean() + F.relu(1 + restored).mean()
