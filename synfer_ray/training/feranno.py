"""FERAnno's training: the head learns on the frozen U-Net's features at the least noise (paper 4.4)."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from synfer_ray.calibration.features import UNetFeatures, extract_features
from synfer_ray.calibration.feranno import FERAnno, neutral_context, prompt_tokens
from synfer_ray.calibration.temperature import fit_temperature
from synfer_ray.config import FERAnnoConfig
from synfer_ray.prompts.lint import NEUTRAL_PROMPT
from synfer_ray.storage.weights import save_model
from synfer_ray.training.experts import balanced_cross_entropy, class_weight
from synfer_ray.training.loop import Arrays, Batch, Objective

if TYPE_CHECKING:
    from synfer_ray.diffusion.components import Components

TIMESTEP = 1


class FERAnnoObjective(Objective):
    """Cross-entropy of `latents` [B,C,h,w] with `label_probs` [B,7]; the prompt is neutral, the AUs null."""

    context: Tensor
    weight: Tensor

    def __init__(
        self,
        components: "Components",
        class_share: np.ndarray,
        image_size: int,
        head: FERAnnoConfig,
    ):
        super().__init__()
        self.unet = components.unet.requires_grad_(False)
        if components.adapter:
            components.adapter.scale = 0.0  # the Annotator too reads the model without its AU branch
        self.tokens = prompt_tokens(components, NEUTRAL_PROMPT)
        self.register_buffer("context", neutral_context(components), persistent=False)
        self.register_buffer("weight", class_weight(class_share), persistent=False)
        example = torch.zeros(1, *components.latent_shape(image_size))
        self.head = FERAnno.for_features(self.features(example), **asdict(head))

    @torch.no_grad()
    def features(self, latents: Tensor) -> UNetFeatures:
        """What the head reads of latents [B,C,h,w]."""
        context = self.context.expand(len(latents), -1, -1)
        return extract_features(self.unet, latents, TIMESTEP, context, self.tokens)

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Weighted soft cross-entropy; also reports the accuracy against the most voted expression."""
        return balanced_cross_entropy(
            self.head(self.features(batch["latents"])), batch["label_probs"], self.weight
        )

    def final_metrics(self, held_out: Arrays, device: torch.device) -> dict[str, float]:
        """The temperature that calibrates the probabilities."""
        latents = torch.from_numpy(held_out["latents"]).float().split(64)
        logits = torch.cat([self.head(self.features(part.to(device))) for part in latents])
        return {"temperature": fit_temperature(logits.cpu().numpy(), held_out["label_probs"].argmax(1))}

    def adopt(self, metrics: Mapping[str, float]) -> None:
        """Gives the head its temperature."""
        self.head.temperature = metrics["temperature"]

    def export(self, folder: Path) -> None:
        """Writes the head's config.json and model.safetensors, in half precision."""
        save_model(self.head, folder, half=True)
