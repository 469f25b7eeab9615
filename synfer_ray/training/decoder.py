"""Sharpening the decoder: the encoder stays, and with it the latents and all that learns from them.

Absolute errors alone make eyes and mouths blur, as their average is the safest answer. Here the decoder also
has to repeat what an expression classifier sees, and to convince a critic (Esser et al. 2021, Sec. 3.1). The
critic looks as well at what the decoder makes of latents that the diffusion model drew: no image says how
they ought to look, and they are what the decoder is for.
"""

from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call

from synfer_ray.calibration.networks import FERClassifier, prepare
from synfer_ray.training.augment import from_uint8, random_flip
from synfer_ray.training.autoencoder import reconstruction_loss
from synfer_ray.training.critic import Critic, critic_loss, gradient_penalty
from synfer_ray.training.loop import Batch, Objective
from synfer_ray.training.saving import save_half

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

PERCEPTUAL_WEIGHT = 0.2
LAYOUT_WEIGHT = 2.0
ADVERSARIAL_SHARE, MOST_ADVERSARIAL = 0.7, 0.3
"""How much of the gradient comes of the critic, beside that of the other terms, and its largest weight."""
CRITIC_PACE = 1.5
ALONE = 60
"""Steps that the critic learns alone, so that the decoder meets one that can tell."""
PENALTY_WEIGHT, PENALTY_EVERY = 2.5e-4, 8
BALANCE_EVERY = 10


class DecoderObjective(Objective):
    """Reconstruction of the `image` column (uint8 [B,H,W,3]), and looks for `drawn` latents [B,C,h,w].

    Args:
        vae: the autoencoder; its encoder is not changed.
        classifier: an expert, whose feature maps are compared.
    """

    calls: Tensor
    balance: Tensor

    def __init__(self, vae: "AutoencoderKL", classifier: FERClassifier):
        super().__init__()
        self.before = deepcopy(vae).requires_grad_(False)
        self.vae = vae.requires_grad_(False)
        self.vae.decoder.requires_grad_(True)
        self.vae.post_quant_conv.requires_grad_(True)
        self.classifier = classifier.requires_grad_(False)
        self.critic = Critic()
        self.register_buffer("calls", torch.tensor(0))
        self.register_buffer("balance", torch.tensor(MOST_ADVERSARIAL))

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The decoder, and the critic at a pace of its own and with less momentum."""
        critic = list(self.critic.parameters())
        decoder = [*self.vae.post_quant_conv.parameters(), *self.vae.decoder.parameters()]
        return [{"params": decoder}, {"params": critic, "pace": CRITIC_PACE, "betas": (0.5, 0.99)}]

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Pixels, edges and features; in training also the critic's opinion, and the critic's own loss."""
        side = batch["drawn"].shape[-1] * 2 ** (len(self.vae.config.block_out_channels) - 1)
        images = F.interpolate(from_uint8(batch["image"]), side, mode="bilinear", antialias=True)
        if self.training:
            images = random_flip(images, generator)[0]
        with torch.no_grad():
            posterior = self.vae.encode(images).latent_dist
        noise = torch.randn(posterior.mean.shape, generator=generator, device=images.device)
        latents = posterior.mean + posterior.std * noise
        if not self.training:
            return self.likeness(self.vae.decode(latents).sample, images)

        drawn = batch["drawn"] / self.vae.config.scaling_factor
        made = self.vae.decode(torch.cat([latents, drawn])).sample.float()
        loss, figures = self.likeness(made[: len(images)], images)
        loss = loss + LAYOUT_WEIGHT * self.moved(made[len(images) :], drawn)
        frozen = {name: value.detach() for name, value in self.critic.named_parameters()}
        doubt = F.softplus(-functional_call(self.critic, frozen, made)).mean()
        if self.calls % BALANCE_EVERY == 0:
            self.weigh(loss, doubt)
        own = self.train_critic(images, made.detach())
        together = float(self.calls >= ALONE)
        self.calls += 1
        total = together * (loss + ADVERSARIAL_SHARE * self.balance * doubt) + own
        return total, figures | {"critic": own.item(), "doubt": doubt.item(), "balance": self.balance.item()}

    def likeness(self, restored: Tensor, images: Tensor) -> tuple[Tensor, dict[str, float]]:
        """How far restored images are from the real ones: pixels, edges and features."""
        pixel, edge = reconstruction_loss(restored, images)
        perceptual = self.feature_distance(restored, images)
        loss = pixel + edge + PERCEPTUAL_WEIGHT * perceptual
        return loss, {"pixel_l1": pixel.item(), "perceptual": perceptual.item()}

    def moved(self, made: Tensor, latents: Tensor) -> Tensor:
        """How far images are, 4 x 4 pixels at a time, from what the decoder made of the latents before."""
        with torch.no_grad():
            before = self.before.decode(latents).sample.float()
        return F.l1_loss(F.avg_pool2d(made, 4), F.avg_pool2d(before, 4))

    def train_critic(self, images: Tensor, made: Tensor) -> Tensor:
        """The critic's own loss; how steep it is counts in every eighth step alone, which is cheaper."""
        is_penalised = bool(self.calls % PENALTY_EVERY == 0)
        real = images.detach().clone().requires_grad_(is_penalised)
        logits = self.critic(real)
        loss = critic_loss(logits, self.critic(made))
        if is_penalised:
            loss = loss + PENALTY_WEIGHT * PENALTY_EVERY * gradient_penalty(logits, real)
        return loss

    def weigh(self, loss: Tensor, doubt: Tensor) -> None:
        """Weighs the critic so that the last layer feels it as strongly as all else (Esser et al., Eq. 7)."""
        last = self.vae.decoder.conv_out.weight
        wanted, adversarial = (
            torch.autograd.grad(term, last, retain_graph=True)[0].norm() for term in (loss, doubt)
        )
        now = (wanted / (adversarial + 1e-6)).clamp(max=MOST_ADVERSARIAL)
        self.balance.lerp_(now, 0.1)

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
