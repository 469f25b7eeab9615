"""Fine-tuning (or training) of the text-to-image model on FEText (paper 4.2.1, Eq. 3)."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from synfer_ray.training.loop import Batch, Objective
from synfer_ray.training.saving import save_half

if TYPE_CHECKING:
    from diffusers import DDIMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel

CAPTION_DROP = 0.1
CUE_DROP = 0.5
"""Share of rows with a caption that is silent on action units: what text says, an adapter need not learn."""
MIN_SNR_GAMMA = 5.0


class DiffusionObjective(Objective):
    """Denoising loss of `latents` [B,C,h,w] under `input_ids` [B,T], with captions dropped for guidance.

    `uncued_ids` [B,T] are the captions without the words on action units, which take their place in half of
    the rows.

    Args:
        empty_ids: tokens of the empty prompt [T].
        lora_rank: trains LoRA matrices of this rank in the U-Net's attention; 0 trains all weights.
        train_text_encoder: also trains the text encoder (needed where it starts untrained).
    """

    empty_ids: Tensor

    def __init__(
        self,
        unet: "UNet2DConditionModel",
        text_encoder: "CLIPTextModel",
        scheduler: "DDIMScheduler",
        empty_ids: Tensor,
        lora_rank: int = 0,
        train_text_encoder: bool = True,
    ):
        super().__init__()
        self.unet, self.text_encoder, self.scheduler = unet, text_encoder, scheduler
        self.unet.requires_grad_(True)  # a loaded one is frozen
        self.text_encoder.requires_grad_(train_text_encoder)
        self.lora_rank = lora_rank
        self.register_buffer("empty_ids", empty_ids, persistent=False)
        if lora_rank:
            add_lora(unet, lora_rank)

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Eq. 3, in the scheduler's own prediction type."""
        latents, input_ids = batch["latents"], batch["input_ids"]
        if self.training:
            is_uncued = draw_rows(len(latents), CUE_DROP, generator)
            input_ids = torch.where(is_uncued[:, None], batch["uncued_ids"], input_ids)
            dropped = draw_rows(len(latents), CAPTION_DROP, generator)
            input_ids = torch.where(dropped[:, None], self.empty_ids, input_ids)
        tokens = self.text_encoder(input_ids)[0]
        return denoising_loss(self.unet, self.scheduler, latents, tokens, generator), {}

    def export(self, folder: Path) -> None:
        """Writes `unet/`, `text_encoder/` and `scheduler/` into a pipeline folder, in half precision."""
        if self.lora_rank:
            merge_lora(self.unet)
        for name in ("unet", "text_encoder", "scheduler"):
            save_half(getattr(self, name), folder / name)


def denoising_loss(
    unet: nn.Module,
    scheduler: "DDIMScheduler",
    latents: Tensor,
    tokens: Tensor,
    generator: torch.Generator,
) -> Tensor:
    """Eq. 3 at a random timestep and noise of each row; `tokens` [B,T,D] are what the U-Net attends to."""
    rows, device = len(latents), latents.device
    noise = torch.randn(latents.shape, generator=generator, device=device)
    steps = scheduler.config.num_train_timesteps
    timesteps = torch.randint(0, steps, (rows,), generator=generator, device=device)
    return denoising_errors(unet, scheduler, latents, noise, timesteps, tokens).mean()


def denoising_errors(
    unet: nn.Module,
    scheduler: "DDIMScheduler",
    latents: Tensor,
    noise: Tensor,
    timesteps: Tensor,
    tokens: Tensor,
) -> Tensor:
    """Mean squared error of each row [B], low-noise steps clipped in weight (min-SNR, Hang et al. 2023)."""
    noisy = scheduler.add_noise(latents, noise, timesteps)
    prediction = unet(noisy, timesteps, tokens).sample
    alphas = scheduler.alphas_cumprod.to(latents.device)[timesteps]
    snr = alphas / (1 - alphas)
    if scheduler.config.prediction_type == "v_prediction":
        target = scheduler.get_velocity(latents, noise, timesteps)
        weight = ((MIN_SNR_GAMMA + 1) / (snr + 1)).clamp(max=1.0)
    else:
        target = noise
        weight = (MIN_SNR_GAMMA / snr).clamp(max=1.0)
    return weight * (prediction.float() - target).square().flatten(1).mean(1)


def draw_rows(rows: int, share: float, generator: torch.Generator) -> Tensor:
    """Draws a random `share` of the rows, bool [rows]."""
    return torch.rand(rows, generator=generator, device=generator.device) < share


def add_lora(unet: "UNet2DConditionModel", rank: int) -> None:
    """Freezes the U-Net and adds trainable LoRA matrices to its attention projections (extra `lora`)."""
    from synfer_ray.errors import require

    peft = require("peft", extra="lora")
    unet.requires_grad_(False)
    targets = ["to_q", "to_k", "to_v", "to_out.0"]
    unet.add_adapter(
        peft.LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=targets)
    )


def merge_lora(unet: "UNet2DConditionModel") -> None:
    """Folds the LoRA matrices into the weights, which leaves a plain U-Net."""
    unet.fuse_lora()
    unet.unload_lora()
