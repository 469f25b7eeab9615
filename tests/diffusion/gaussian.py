"""A denoiser known in closed form: the best prediction for normally distributed data."""

from types import SimpleNamespace

import torch
from diffusers import DDIMScheduler
from torch import Tensor, nn

from synfer_ray.diffusion.components import Components
from tests.tiny import tiny_scheduler

SPREAD = 0.5


class GaussianUNet(nn.Module):
    """Predicts the noise (or velocity) in `x_t` when x_0 has mean 0 and standard deviation `SPREAD`."""

    device, dtype = torch.device("cpu"), torch.float64

    def __init__(self, scheduler: DDIMScheduler):
        super().__init__()
        self.scheduler = scheduler

    def forward(self, latents: Tensor, timestep: Tensor, encoder_hidden_states: Tensor) -> SimpleNamespace:
        alpha = self.scheduler.alphas_cumprod[timestep].double()
        variance = alpha * SPREAD**2 + 1 - alpha
        noise = (1 - alpha).sqrt() / variance * latents
        clean = alpha.sqrt() * SPREAD**2 / variance * latents
        if self.scheduler.config.prediction_type == "v_prediction":
            return SimpleNamespace(sample=alpha.sqrt() * noise - (1 - alpha).sqrt() * clean)
        return SimpleNamespace(sample=noise)


def gaussian_components(prediction_type: str = "epsilon") -> Components:
    scheduler = tiny_scheduler(prediction_type)
    return Components(GaussianUNet(scheduler), None, None, None, scheduler, adapter=None, folder="gaussian")
