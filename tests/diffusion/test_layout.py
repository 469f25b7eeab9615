import numpy as np
import pytest
import torch

from synfer_ray.diffusion.layout import ddim_invert, first_step, partial_noise
from synfer_ray.diffusion.sampling import SamplingConfig, denoise
from synfer_ray.errors import InputError
from tests.diffusion.gaussian import SPREAD, gaussian_components
from tests.tiny import tiny_components, tiny_scheduler

torch.set_num_threads(1)


def test_partial_noise_is_equation_1_at_the_first_executed_step():
    scheduler = tiny_scheduler()
    latents, noise = torch.randn(2, 4, 8, 8), torch.randn(2, 4, 8, 8)
    noisy, start_step = partial_noise(latents, 0.6, noise, scheduler, num_inference_steps=20)
    assert start_step == 8
    timestep = 1 + 50 * 11  # 12 of 20 steps are left: timesteps 1, 51, ..., 551
    betas = np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2
    alpha_bar = np.cumprod(1 - betas)[timestep]
    expected = alpha_bar**0.5 * latents + (1 - alpha_bar) ** 0.5 * noise
    torch.testing.assert_close(noisy, expected.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("strength", "start_step"), [(1.0, 0), (0.7, 15), (0.3, 35), (0.001, 49)])
def test_strength_is_the_share_of_executed_steps(strength, start_step):
    assert first_step(50, strength) == start_step


@pytest.mark.parametrize("strength", [0.0, -0.1, 1.1])
def test_an_impossible_strength_is_refused(strength):
    with pytest.raises(InputError, match=str(strength)):
        first_step(50, strength)


@torch.no_grad()
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_sampling_undoes_inversion_the_better_the_more_steps(prediction_type):
    components = gaussian_components(prediction_type)
    latents = SPREAD * torch.randn(2, 4, 4, 4, dtype=torch.float64)
    text = torch.zeros(2, 3, 16, dtype=torch.float64)
    errors = []
    for steps in (10, 50, 250):
        start, start_step = ddim_invert(components, latents, text, strength=0.8, num_inference_steps=steps)
        sampling = SamplingConfig(steps, eta=0.0, guidance_scale=1.0)
        samples = denoise(components, sampling, start, start_step, prompt_embeds=text, empty_embeds=text)
        errors.append(float((samples.latents - latents).norm() / latents.norm()))
    assert errors[0] > 2 * errors[1] > 4 * errors[2]
    assert errors[2] < 0.02


@torch.no_grad()
def test_inversion_makes_noise_of_data():
    components = gaussian_components()
    torch.manual_seed(0)
    latents = SPREAD * torch.randn(8, 4, 8, 8, dtype=torch.float64)
    start, start_step = ddim_invert(components, latents, torch.zeros(8, 3, 16), 1.0, num_inference_steps=100)
    assert start_step == 0
    assert float(start.std()) == pytest.approx(1.0, abs=0.05)


@torch.no_grad()
def test_inversion_reads_the_neutral_prompt_with_the_null_action_units():
    components = tiny_components()
    latents, text = torch.randn(2, 4, 8, 8), torch.randn(2, 12, 16)
    contexts = []
    components.unet.register_forward_pre_hook(
        lambda _unet, _args, named: contexts.append(named["encoder_hidden_states"]), with_kwargs=True
    )
    ddim_invert(components, latents, text, strength=0.5, num_inference_steps=4)
    expected = torch.cat([text, components.adapter.null_tokens(2)], dim=1)
    assert len(contexts) == 2
    assert all(torch.equal(context, expected) for context in contexts)
