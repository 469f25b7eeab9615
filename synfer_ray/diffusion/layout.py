"""Layout initialisation: sampling starts from a face instead of pure noise (paper 4.3).

Both ways enter the sampler's schedule in the middle, because noise at the last timestep keeps no layout. They
return the start latents and the index of the first step to execute, as `denoise` takes them.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from synfer_ray.diffusion.components import Components
from synfer_ray.errors import InputError

if TYPE_CHECKING:
    from diffusers.schedulers import DDIMScheduler


def partial_noise(
    latents: Tensor, strength: float, noise: Tensor, scheduler: "DDIMScheduler", num_inference_steps: int
) -> tuple[Tensor, int]:
    """Noises latents as far as `strength` says: `sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps` (Eq. 1).

    Args:
        latents: latents x_0 of faces, [B, C, H, W].
        strength: share of the sampling steps that will be executed, above 0 up to 1.
    """
    start_step = first_step(num_inference_steps, strength)
    scheduler.set_timesteps(num_inference_steps)
    timestep = scheduler.timesteps[start_step].expand(len(latents))
    return scheduler.add_noise(latents, noise.to(latents), timestep), start_step


@torch.no_grad()
def ddim_invert(
    components: Components, latents: Tensor, prompt_embeds: Tensor, strength: float, num_inference_steps: int
) -> tuple[Tensor, int]:
    """Runs DDIM backwards (eta = 0) to the noise from which sampling would find the latents again.

    Args:
        latents: latents of faces, [B, C, H, W].
        prompt_embeds: embeddings [B, T, D] of a neutral prompt; the AU condition is null.
        strength: share of the steps to invert, and to execute later.
    """
    from diffusers.schedulers import DDIMInverseScheduler

    start_step = first_step(num_inference_steps, strength)
    scheduler = DDIMInverseScheduler.from_config(components.scheduler.config)
    scheduler.set_timesteps(num_inference_steps)
    context = components.context(prompt_embeds)
    latents = latents.to(components.device, components.dtype)
    for timestep in scheduler.timesteps[: num_inference_steps - start_step]:
        prediction = components.unet(latents, timestep, encoder_hidden_states=context).sample
        latents = scheduler.step(prediction, timestep, latents).prev_sample
    return latents, start_step


def first_step(num_inference_steps: int, strength: float) -> int:
    """Returns the index of the first of `num_inference_steps` that a strength leaves to execute.

    Raises:
        InputError: the strength is not in (0, 1].
    """
    if not 0 < strength <= 1:
        raise InputError(f"layout strength {strength} is not in (0, 1]")
    return num_inference_steps - max(1, round(num_inference_steps * strength))
