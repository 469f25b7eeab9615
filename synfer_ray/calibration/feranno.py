"""FERAnno: a label calibrator that reads expressions from the diffusion model's own features (paper 4.4)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from synfer_ray.calibration.features import UNetFeatures, extract_features
from synfer_ray.calibration.fusion import FusionScale
from synfer_ray.diffusion.components import encode_image, encode_prompt, word_mask
from synfer_ray.diffusion.noise import initial_noise
from synfer_ray.errors import InputError, choose
from synfer_ray.prompts.lint import NEUTRAL_PROMPT
from synfer_ray.storage.weights import load_model
from synfer_ray.taxonomy.expressions import EXPRESSIONS

if TYPE_CHECKING:
    from synfer_ray.diffusion.components import Components

BRANCHES = ("features", "maps")


class FERAnno(nn.Module):
    """The dual-branch head: U-Net features and attention maps -> logits [B, 7].

    At each scale, from coarse to fine, a residual convolution block encodes each branch, a 1x1 convolution
    adds what the coarser scale found, and the branches attend to each other. The averages of both branches at
    the finest scale are concatenated and classified.

    Args:
        sides: sides of the grids, coarse to fine.
        feature_channels: channels of the U-Net features at each side.
        map_channels: number of text tokens whose attention maps are read.
        branches: leave one out for the ablation; the other then attends to itself.
        temperature: divides the logits in `predict`.
    """

    def __init__(
        self,
        sides: Sequence[int],
        feature_channels: Sequence[int],
        map_channels: int,
        width: int = 64,
        heads: int = 4,
        branches: Sequence[str] = BRANCHES,
        dropout: float = 0.1,
        temperature: float = 1.0,
    ) -> None:
        super().__init__()
        self.sides = list(sides)
        self.branches = [choose(branch, BRANCHES, "FERAnno branch") for branch in branches]
        self.temperature = temperature
        self._settings = {
            "sides": self.sides,
            "feature_channels": list(feature_channels),
            "map_channels": map_channels,
            "width": width,
            "heads": heads,
            "branches": self.branches,
            "dropout": dropout,
        }
        channels = [{"features": count, "maps": map_channels} for count in feature_channels]
        self.scales = nn.ModuleList(
            FusionScale({branch: scale[branch] for branch in self.branches}, width, heads)
            for scale in channels
        )
        self.head = nn.Sequential(
            nn.Dropout(dropout), nn.Linear(len(self.branches) * width, len(EXPRESSIONS))
        )

    @classmethod
    def for_features(cls, example: UNetFeatures, **settings: Any) -> "FERAnno":
        """Builds an untrained head that fits the U-Net `example` was extracted from."""
        feature_channels = [grid.shape[1] for grid in example.features.values()]
        map_channels = next(iter(example.attention.values())).shape[1]
        return cls(list(example.features), feature_channels, map_channels, **settings)

    @property
    def config(self) -> dict[str, Any]:
        """The keywords that build this head again."""
        return {**self._settings, "temperature": self.temperature}

    def forward(self, inputs: UNetFeatures) -> Tensor:
        """Returns logits in the order of EXPRESSIONS.

        Raises:
            InputError: the features were taken at other resolutions than those of the training.
        """
        if list(inputs.features) != self.sides:
            raise InputError(f"FERAnno was trained on grids of {self.sides}, not {list(inputs.features)}")
        by_branch = {"features": inputs.features, "maps": inputs.attention}
        fused: dict[str, Tensor] = {}
        for side, scale in zip(self.sides, self.scales):
            fused = scale({branch: by_branch[branch][side] for branch in self.branches}, fused)
        return self.head(torch.cat([fused[branch].mean(dim=(2, 3)) for branch in self.branches], dim=1))

    @torch.no_grad()
    def predict(self, inputs: UNetFeatures) -> Tensor:
        """Returns calibrated probabilities [B, 7]."""
        return (self(inputs) / self.temperature).softmax(dim=-1)


@dataclass(frozen=True)
class Annotation:
    """FERAnno's opinion.

    Attributes:
        probs: [B, 7] in the order of EXPRESSIONS.
        attention: the attention maps it read, side -> [B, tokens, side, side].
    """

    probs: Tensor
    attention: dict[int, Tensor]


class Annotator:
    """Diffusion model and FERAnno head together: latents or images in, probabilities out.

    The condition is always the neutral prompt and the null action units. The prompt a face was generated from
    never enters, so the assigned label cannot leak into its own check.

    Args:
        timestep: least noise, so that details survive (paper 4.4).
        add_noise: noise the latents to `timestep` (Eq. 1) by one seed a row; else they enter as they are.
    """

    name = "feranno"

    def __init__(
        self, components: "Components", head: FERAnno, timestep: int = 1, add_noise: bool = False
    ) -> None:
        self.components = components
        self.head = head.to(components.device).eval()
        self.timestep = timestep
        self.add_noise = add_noise
        self.context = neutral_context(components)
        self.tokens = prompt_tokens(components, NEUTRAL_PROMPT)

    def from_latents(self, latents: Tensor, seeds: Sequence[int] = ()) -> Annotation:
        """Reads the expression from latents [B, C, h, w]; `seeds` are needed for `add_noise` only."""
        features = self.features(latents, seeds)
        return Annotation(self.head.predict(features), features.attention)

    def from_images(self, images: Tensor, seeds: Sequence[int] = ()) -> Annotation:
        """Reads the expression from images [B, 3, H, W] in [-1, 1], through the autoencoder."""
        return self.from_latents(self.encode(images), seeds)

    def encode(self, images: Tensor) -> Tensor:
        """Images [B, 3, H, W] in [-1, 1] -> the autoencoder's latents [B, C, h, w]."""
        return encode_image(self.components, images)

    def predict(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Serves as an Expert: images [B, 3, H, W] in [-1, 1] -> probabilities [B, 7]."""
        return self.from_images(torch.from_numpy(images)).probs.cpu().numpy()

    @torch.no_grad()
    def features(self, latents: Tensor, seeds: Sequence[int] = ()) -> UNetFeatures:
        """What the head reads, and what it is trained on."""
        latents = latents.to(self.components.device, self.components.dtype)
        if self.add_noise:
            noise = initial_noise(seeds, latents.shape[1:]).to(latents)
            steps = torch.full((len(latents),), self.timestep)
            latents = self.components.scheduler.add_noise(latents, noise, steps)
        context = self.context.expand(latents.shape[0], -1, -1)  # a size that recordings leave open
        with no_action_units(self.components):
            return extract_features(self.components.unet, latents, self.timestep, context, self.tokens)


@torch.no_grad()
def neutral_context(components: "Components") -> Tensor:
    """What the U-Net attends to: the neutral prompt and, where an adapter is attached, null action units."""
    return components.context(encode_prompt(components, [NEUTRAL_PROMPT]))


@contextmanager
def no_action_units(components: "Components") -> Iterator[None]:
    """Turns the AU branch off: the calibrator reads the model itself, with or without an adapter."""
    if components.adapter is None:
        yield
        return
    scale, components.adapter.scale = components.adapter.scale, 0.0
    try:
        yield
    finally:
        components.adapter.scale = scale


def prompt_tokens(components: "Components", prompt: str) -> slice:
    """The positions of the prompt's words and its end token: all but the start token and the padding."""
    words = int(word_mask(components, [prompt]).sum())
    return slice(1, words + 2)


def load_annotator(components: "Components", **settings: Any) -> Annotator:
    """Loads the head from `feranno/` beside the components.

    Raises:
        InputError: the folder is missing or does not fit.
    """
    return Annotator(components, load_model(FERAnno, Path(components.folder) / "feranno"), **settings)
