"""DDIM sampling under text, action units and semantic guidance (paper 4.2-4.3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from synfer_ray.config import SamplingConfig
from synfer_ray.diffusion.components import Components, decode_latents
from synfer_ray.diffusion.editing import LocalEdit
from synfer_ray.diffusion.guidance import SemanticGuidance, autoguide, combine, rescale
from synfer_ray.errors import InputError
from synfer_ray.storage.bundle import autoguidance_scale

if TYPE_CHECKING:
    from diffusers.schedulers import DDIMScheduler

Row = TypeVar("Row")

HALF_LOSS_SCALE = 2.0**12
"""Keeps the gradients of guidance above the smallest float16; the length of a step does not depend on it."""

MOST_ETA = 1 - 1e-6
"""Where noise is all there is, `eta` 1 leaves a rest of 0, and rounding would take the root of less."""


@dataclass(frozen=True)
class Samples:
    """Final latents [B, C, H, W] and how many guidance updates each row had to skip, int64 [B]."""

    latents: Tensor
    guidance_skipped: Tensor


@torch.no_grad()
def denoise(
    components: Components,
    config: SamplingConfig,
    latents: Tensor,
    start_step: int = 0,
    *,
    generators: Sequence[torch.Generator] | None = None,
    # conditions
    prompt_embeds: Tensor,
    empty_embeds: Tensor,
    au_tokens: Tensor | None = None,
    # semantic guidance
    guidance: SemanticGuidance | None = None,
    targets: Tensor | None = None,
    token_mask: Tensor | None = None,
    # local editing
    edit: LocalEdit | None = None,
) -> Samples:
    """Samples latents; every row follows from its own inputs only, unless there is an `edit`.

    A guided step runs the conditional branch once: its prediction moves the latents, and its estimate of the
    clean image moves the text embedding that the next step reads.

    Args:
        latents: start latents [B, C, H, W]: noise, or what layout initialisation returns.
        start_step: index of the first step to execute.
        generators: of each row, for the noise that steps with `eta` above 0 add.
        prompt_embeds: embeddings c_text of the prompts, [B, T, D].
        empty_embeds: embeddings of the empty (or of a negative) prompt, [B, T, D].
        au_tokens: tokens c_au from `AUAdapter.encode`, [B, N, D]; None = no AU condition.
        guidance: the classifier guidance, which needs `targets`; None = the text embedding stays.
        targets: probabilities of the assigned label, [B, 7].
        token_mask: tokens that guidance may move, bool [B, T]; None = all.
        edit: where alone rows may differ from the first; None = everywhere.

    Raises:
        InputError: guidance comes without targets, `eta` without generators, or `autoguidance_scale` does not
            fit.
    """
    if guidance and targets is None:
        raise InputError("semantic guidance needs the probabilities of the assigned label")
    if config.eta and generators is None:
        raise InputError(f"eta={config.eta} adds noise in every step: each row needs a generator")
    weak_scale = autoguidance_scale(config, components.weak_unet is not None)
    noise_source = list(generators) if generators else None
    scheduler = components.scheduler
    scheduler.set_timesteps(config.num_inference_steps)
    timesteps = scheduler.timesteps[start_step:]
    first_autoguided = round(config.autoguidance_start * len(timesteps))
    guided_steps = guidance.steps(len(timesteps)) if guidance else range(0)
    text_scale, au_scale = config.guidance_scale, config.au_guidance_scale
    if au_scale is None or au_tokens is None:
        au_scale = text_scale
    decode = guidance.decode if guidance and guidance.decode else partial(decode_latents, components)
    loss_scale = HALF_LOSS_SCALE if components.dtype == torch.float16 else 1.0
    latents = latents.to(components.device, components.dtype)
    skipped = torch.zeros(len(latents), dtype=torch.int64, device=latents.device)

    for step, timestep in enumerate(timesteps):
        contexts = [] if text_scale == 1 else [components.context(empty_embeds)]
        if au_scale != text_scale:
            contexts.append(components.context(prompt_embeds))

        if guidance and targets is not None and step in guided_steps:
            predictions = _predict(components, latents, timestep, contexts) if contexts else []
            with torch.enable_grad():
                prompt_embeds = prompt_embeds.detach().requires_grad_()
                context = components.context(prompt_embeds, au_tokens)
                predictions += _predict(components, latents, timestep, [context])
                x0_hat = predict_x0(scheduler, predictions[-1], timestep, latents)
                loss = loss_scale * guidance.loss(decode(x0_hat), targets).sum()  # a sum keeps rows apart
            (gradient,) = torch.autograd.grad(loss, prompt_embeds)
            prompt_embeds, row_skipped = guidance.update(prompt_embeds, gradient, token_mask)
            skipped += row_skipped
        else:
            context = components.context(prompt_embeds, au_tokens)
            predictions = _predict(components, latents, timestep, [*contexts, context])

        # What cancels is not predicted, and the first prediction stands for it: that of the text alone where
        # the scales are equal, that of the empty prompt where the text's is 1.
        prediction = combine(predictions[0], predictions[-2:][0], predictions[-1], text_scale, au_scale)
        if weak_scale and components.weak_unet is not None and step >= first_autoguided:
            weak = components.weak_unet(latents, timestep, encoder_hidden_states=context).sample
            prediction = autoguide(prediction, predictions[-1], weak, weak_scale)
        prediction = rescale(prediction, predictions[-1], config.guidance_rescale)
        eta = min(config.eta, MOST_ETA) if scheduler.alphas_cumprod[timestep] == 0 else config.eta
        latents = scheduler.step(prediction, timestep, latents, eta=eta, generator=noise_source).prev_sample
        if edit:
            latents = edit.blend(latents, step + 1, len(timesteps))
    return Samples(latents, skipped)


def predict_x0(scheduler: "DDIMScheduler", prediction: Tensor, timestep: Tensor, latents: Tensor) -> Tensor:
    """Estimates the clean latents from a prediction of the noise or of the velocity (Eq. 4)."""
    alpha_bar = scheduler.alphas_cumprod[timestep]
    if scheduler.config.prediction_type == "v_prediction":
        return alpha_bar.sqrt() * latents - (1 - alpha_bar).sqrt() * prediction
    return (latents - (1 - alpha_bar).sqrt() * prediction) / alpha_bar.sqrt()


def pad_batch(rows: Sequence[Row], size: int) -> list[Row]:
    """Repeats the last row up to `size`: rows are bit-identical only between batches of one size."""
    return [*rows, *[rows[-1]] * (size - len(rows))]


def _predict(
    components: Components, latents: Tensor, timestep: Tensor, contexts: list[Tensor]
) -> list[Tensor]:
    """Runs the U-Net once for all contexts; returns one prediction [B, C, H, W] for each."""
    latents = latents.repeat(len(contexts), 1, 1, 1)
    prediction = components.unet(latents, timestep, encoder_hidden_states=torch.cat(contexts)).sample
    return list(prediction.chunk(len(contexts)))
