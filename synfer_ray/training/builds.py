"""What each part of a bundle is when its training starts: new or loaded networks, and their objective.

Ray Train workers call these functions, each in a process of its own.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from synfer_ray.config import ArchitectureConfig, FERAnnoConfig
from synfer_ray.errors import InputError
from synfer_ray.storage.bundle import expert_spec
from synfer_ray.training.loop import Objective

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import CLIPTokenizer


def build_autoencoder(architecture: ArchitectureConfig) -> Objective:
    """An untrained autoencoder."""
    from synfer_ray.training.architectures import new_autoencoder
    from synfer_ray.training.autoencoder import AutoencoderObjective

    return AutoencoderObjective(new_autoencoder(architecture))


def build_decoder(bundle: str) -> Objective:
    """The bundle's autoencoder, with its guide to compare features."""
    import torch
    from diffusers import AutoencoderKL

    from synfer_ray.calibration.networks import FERClassifier
    from synfer_ray.diffusion.components import load_part
    from synfer_ray.storage.weights import load_model
    from synfer_ray.training.decoder import DecoderObjective

    folder = Path(bundle)
    vae = load_part(AutoencoderKL, folder / "vae", torch.float32)
    return DecoderObjective(vae, load_model(FERClassifier, expert_spec("guide", folder, {}).path))


def build_diffusion(
    bundle: str, architecture: ArchitectureConfig, pretrained: bool, lora_rank: int
) -> Objective:
    """The bundle's own diffusion model if it is `pretrained`, otherwise an untrained one."""
    from transformers import CLIPTokenizer

    from synfer_ray.diffusion.au_adapter import AUAdapter
    from synfer_ray.diffusion.components import load_components
    from synfer_ray.training.architectures import new_scheduler, new_text_encoder, new_unet
    from synfer_ray.training.diffusion import DiffusionObjective

    if pretrained:
        parts = load_components(bundle)
        AUAdapter.detach(parts.unet)  # it would read the last text tokens as its own
        empty = empty_ids(parts.tokenizer)
        return DiffusionObjective(parts.unet, parts.text_encoder, parts.scheduler, empty, lora_rank, False)
    tokenizer = CLIPTokenizer.from_pretrained(Path(bundle) / "tokenizer")
    return DiffusionObjective(
        new_unet(architecture),
        new_text_encoder(architecture, len(tokenizer), tokenizer.eos_token_id),
        new_scheduler(architecture),
        empty_ids(tokenizer),
    )


def build_au_adapter(bundle: str, supported: list[str]) -> Objective:
    """A new adapter for the bundle's U-Net."""
    from synfer_ray.diffusion.au_adapter import AUAdapter
    from synfer_ray.diffusion.components import load_components
    from synfer_ray.training.au_adapter import AUAdapterObjective

    parts = load_components(bundle)
    adapter = AUAdapter.for_unet(parts.unet, supported=supported)
    return AUAdapterObjective(
        parts.unet, parts.text_encoder, parts.scheduler, empty_ids(parts.tokenizer), adapter
    )


def build_joint(bundle: str) -> Objective:
    """The bundle's diffusion model and its adapter, as they are."""
    from synfer_ray.diffusion.components import load_components
    from synfer_ray.training.joint import JointObjective

    parts = load_components(bundle)
    return JointObjective(
        parts.unet, parts.text_encoder, parts.scheduler, empty_ids(parts.tokenizer), parts.adapter
    )


def build_au_labeler(supported: list[str]) -> Objective:
    """An untrained action-unit network."""
    from synfer_ray.calibration.networks import ActionUnitNet
    from synfer_ray.training.experts import ActionUnitObjective

    return ActionUnitObjective(ActionUnitNet(supported=supported))


def build_preview(bundle: str) -> Objective:
    """An untrained preview decoder for the bundle's autoencoder."""
    import torch
    from diffusers import AutoencoderKL

    from synfer_ray.diffusion.components import load_part
    from synfer_ray.training.preview import PreviewObjective

    return PreviewObjective(load_part(AutoencoderKL, Path(bundle) / "vae", torch.float32))


def build_weak_unet(bundle: str, architecture: ArchitectureConfig) -> Objective:
    """An untrained weak U-Net that reads what the bundle's U-Net reads.

    Raises:
        InputError: the bundle has no AU adapter.
    """
    from synfer_ray.diffusion.components import load_components
    from synfer_ray.training.architectures import new_weak_unet
    from synfer_ray.training.weak_unet import WeakUNetObjective

    parts = load_components(bundle)
    if parts.adapter is None:
        raise InputError(f"{bundle} has no au_adapter/, whose tokens the weak U-Net reads: train it first")
    weak_unet = new_weak_unet(architecture, parts.unet)
    return WeakUNetObjective(
        weak_unet, parts.text_encoder, parts.adapter, parts.scheduler, empty_ids(parts.tokenizer)
    )


def build_preference(bundle: str, stride: float = 1.0) -> Objective:
    """The bundle's U-Net as it is, to learn on beside what it was, and to be moved `stride` times as far.

    Raises:
        InputError: the bundle has no AU adapter.
    """
    from synfer_ray.diffusion.components import load_components
    from synfer_ray.training.preference import PreferenceObjective

    parts = load_components(bundle)
    if parts.adapter is None:
        raise InputError(f"{bundle} has no au_adapter/, whose tokens its U-Net reads: train it first")
    conditions = parts.text_encoder, parts.adapter, parts.scheduler, empty_ids(parts.tokenizer)
    return PreferenceObjective(parts.unet, *conditions, stride=stride)


def build_feranno(bundle: str, class_share: np.ndarray, image_size: int, head: FERAnnoConfig) -> Objective:
    """An untrained FERAnno head on the bundle's U-Net, for faces of this size."""
    from synfer_ray.diffusion.components import load_components
    from synfer_ray.training.feranno import FERAnnoObjective

    return FERAnnoObjective(load_components(bundle), class_share, image_size, head)


def build_expert(architecture: str, class_share: np.ndarray) -> Objective:
    """An untrained expression classifier."""
    from synfer_ray.calibration.networks import FERClassifier
    from synfer_ray.training.experts import ExpressionObjective

    return ExpressionObjective(FERClassifier(architecture), class_share)


def build_wholeness(bundle: str, base: str, reads: bool) -> Objective:
    """A network with the trunk of the bundle's expert `base`, a `SeparableFER`; it may read expressions."""
    from synfer_ray.calibration.networks import FERClassifier, SeparableFER
    from synfer_ray.calibration.wholeness import WholenessNet
    from synfer_ray.storage.weights import load_model
    from synfer_ray.training.wholeness import WholenessObjective

    expert = load_model(FERClassifier, expert_spec(base, Path(bundle), {}).path).network
    if not isinstance(expert, SeparableFER):
        raise InputError(f"wholeness_base={base} is no separable network")
    network = WholenessNet(reads, **expert.config)
    network.trunk.load_state_dict(expert.trunk.state_dict())
    return WholenessObjective(network)


def empty_ids(tokenizer: "CLIPTokenizer") -> "Tensor":
    """Tokens of the empty caption [T]."""
    import torch

    from synfer_ray.training.data import tokenize

    return torch.from_numpy(tokenize(tokenizer, [""])[0])
