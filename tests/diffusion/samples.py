"""What tests of the sampler share: prompts, targets, a guide, and a call of `denoise` with few steps."""

import torch
from torch import Tensor, nn

from synfer_ray.diffusion.components import Components, encode_prompt
from synfer_ray.diffusion.noise import initial_noise, next_noise, row_generator
from synfer_ray.diffusion.sampling import Samples, SamplingConfig, denoise

PROMPTS = ["a photo of a happy face", "a sad person", "angry face with raised brows"]
TARGETS = torch.eye(7)[[1, 2, 6]]


class TanhGuide(nn.Module):
    """A smooth classifier of 32-pixel images."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(5)
        self.linear = nn.Linear(3 * 32 * 32, 7)
        self.requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        return self.linear(images.flatten(1).tanh())


def sample(components: Components, prompts=PROMPTS, seeds=(1, 2, 3), start_step=0, **options) -> Samples:
    """`options` are fields of SamplingConfig or arguments of denoise."""
    fields = {key: options.pop(key) for key in list(options) if key in SamplingConfig.__annotations__}
    if components.adapter:
        action_units = initial_noise(seeds, (41,)).abs().clamp(max=1)
        options.setdefault("au_tokens", components.adapter.encode(action_units))
    defaults = {"num_inference_steps": 4, "eta": 0.0, "guidance_scale": 3.0, "au_guidance_scale": None}
    generators = [row_generator(seed) for seed in seeds]
    return denoise(
        components,
        SamplingConfig(**defaults | fields),
        next_noise(generators, components.latent_shape(32)),
        start_step,
        generators=generators,
        prompt_embeds=encode_prompt(components, prompts),
        **{"empty_embeds": encode_prompt(components, [""] * len(prompts))} | options,
    )
