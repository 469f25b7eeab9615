"""Guidance by text, by action units and by an expression classifier (paper 4.3)."""

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from synfer_ray.errors import choose

DELTA = 1e-8


def combine(
    eps_uncond: Tensor,
    eps_text: Tensor,
    eps_text_au: Tensor,
    guidance_scale: float,
    au_guidance_scale: float,
) -> Tensor:
    """Classifier-free guidance with a scale for the text and one for the action units.

    `e_u + g_text (e_text - e_u) + g_au (e_text_au - e_text)`; with equal scales `e_text` cancels.
    """
    text = guidance_scale * (eps_text - eps_uncond)
    action_units = au_guidance_scale * (eps_text_au - eps_text)
    return eps_uncond + text + action_units


def autoguide(prediction: Tensor, eps_strong: Tensor, eps_weak: Tensor, autoguidance_scale: float) -> Tensor:
    """Moves a prediction away from the errors that a weak version of the model makes (Karras et al. 2024).

    `prediction + g (e - e_weak)`, all [B, C, H, W]. Both read the same conditions, so that what they differ
    in is how well they know the faces that were asked for.
    """
    return prediction + autoguidance_scale * (eps_strong - eps_weak)


def rescale(guided: Tensor, conditional: Tensor, guidance_rescale: float) -> Tensor:
    """Takes back the share `guidance_rescale` of the contrast that guidance adds (Lin et al. 2024, sec. 3.4).

    Both predictions are [B, C, H, W].
    """
    if guidance_rescale == 0:
        return guided
    contrast = conditional.std((1, 2, 3), keepdim=True) / guided.std((1, 2, 3), keepdim=True)
    return guidance_rescale * (guided * contrast) + (1 - guidance_rescale) * guided


def guided_steps(start: float, num_steps: int) -> range:
    """Returns the steps from the share `start` on, without the last one, whose update no step would read."""
    return range(round(start * num_steps), num_steps - 1)


@dataclass(frozen=True)
class SemanticGuidance:
    """Pulls the text embedding towards what an expression classifier recognises (paper Eq. 4-6).

    In the later steps the clean image is estimated and classified, and the text embedding takes a step DOWN
    the classification loss, of a fixed length; the paper's Eq. 6 prints the opposite sign.

    Args:
        guide: images [B, 3, H, W] in [-1, 1] -> logits [B, 7], differentiable, each row on its own.
        step_size: length lambda_g of a step; with 77 tokens, 0.1 per token goes as far as 0.88 per sample.
        norm: the gradient is divided by its norm per "token", or over all tokens of the "sample" as printed.
        start: share of the executed steps before guidance begins.
        decode: latents -> images, differentiable; None uses the model's own autoencoder.

    Raises:
        InputError: `norm` is neither of the two.
    """

    guide: Callable[[Tensor], Tensor]
    step_size: float = 0.1
    norm: str = "token"
    start: float = 0.6
    decode: Callable[[Tensor], Tensor] | None = None

    def __post_init__(self) -> None:
        choose(self.norm, ("token", "sample"), "guidance norm")

    def steps(self, num_steps: int) -> range:
        """Returns which of the executed steps are guided."""
        return guided_steps(self.start, num_steps)

    def loss(self, images: Tensor, targets: Tensor) -> Tensor:
        """Cross-entropy L_g of the guide's logits with target probabilities [B, 7], for each row (Eq. 5).

        The guide works in float32, whatever the images' number type.
        """
        logits = self.guide(images.float()).float()
        return F.cross_entropy(logits, targets.to(logits), reduction="none")

    def update(
        self, prompt_embeds: Tensor, gradient: Tensor, token_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Takes one step of descent `c - lambda_g g / (||g|| + delta)` (Eq. 6), each row on its own.

        Args:
            prompt_embeds: text embeddings c, [B, T, D].
            gradient: gradient g of the loss, [B, T, D].
            token_mask: tokens that may move, bool [B, T]; None moves all.

        Returns:
            The new embeddings, and bool [B]: the rows left alone, as their gradient is zero or not finite.
        """
        gradient = gradient.float()
        if token_mask is not None:
            gradient = gradient.where(token_mask[..., None], 0.0)
        norm = gradient.norm(dim=-1 if self.norm == "token" else (1, 2), keepdim=True)
        skipped = ~gradient.isfinite().all(dim=(1, 2)) | (norm == 0).all(dim=(1, 2))
        moved = prompt_embeds - self.step_size * gradient / (norm + DELTA)
        return prompt_embeds.where(skipped[:, None, None], moved.to(prompt_embeds.dtype)), skipped
