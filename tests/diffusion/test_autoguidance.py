import pytest
import torch
from torch import Tensor

from synfer_ray.config import SamplingConfig
from synfer_ray.diffusion.components import encode_prompt
from synfer_ray.diffusion.guidance import SemanticGuidance
from synfer_ray.diffusion.noise import next_noise, row_generator
from synfer_ray.diffusion.sampling import denoise
from synfer_ray.errors import InputError
from synfer_ray.storage.bundle import AUTOGUIDANCE_SCALE
from tests.diffusion.samples import PROMPTS, TARGETS, TanhGuide, sample
from tests.tiny import tiny_components, tiny_weak_unet

torch.set_num_threads(1)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_a_step_goes_away_from_the_weak_prediction(prediction_type):
    components = tiny_components(adapter=False, prediction_type=prediction_type)
    components.weak_unet = tiny_weak_unet()
    stepped = sample(
        components, num_inference_steps=1, autoguidance_scale=0.8, autoguidance_start=0.0
    ).latents
    scheduler = components.scheduler
    (timestep,) = scheduler.timesteps
    start = next_noise([row_generator(seed) for seed in (1, 2, 3)], (4, 8, 8))

    def predict(prompts: list[str]) -> Tensor:
        return components.unet(start, timestep, encode_prompt(components, prompts)).sample

    nothing, text = predict([""] * 3), predict(PROMPTS)
    weak = components.weak_unet(start, timestep, encode_prompt(components, PROMPTS)).sample
    moved = nothing + 3.0 * (text - nothing) + 0.8 * (text - weak)
    expected = scheduler.step(moved, timestep, start).prev_sample
    torch.testing.assert_close(stepped, expected, rtol=1e-4, atol=1e-4)


def test_a_weak_unet_guides_by_default_and_only_where_there_is_one():
    components = tiny_components()
    plain = sample(components).latents
    with pytest.raises(InputError, match=r"autoguidance_scale=0\.2, but the bundle has no weak_unet/"):
        sample(components, autoguidance_scale=0.2)
    components.weak_unet = tiny_weak_unet()
    assert torch.equal(sample(components, autoguidance_scale=0.0).latents, plain)
    by_default = sample(components).latents
    assert torch.equal(by_default, sample(components, autoguidance_scale=AUTOGUIDANCE_SCALE).latents)
    assert not torch.equal(by_default, plain)


def test_the_weak_unet_reads_what_the_model_reads_action_units_and_moved_words_included():
    components = tiny_components()
    components.weak_unet = tiny_weak_unet()
    read: dict[str, list[Tensor]] = {"strong": [], "weak": []}
    for name, unet in (("strong", components.unet), ("weak", components.weak_unet)):
        unet.register_forward_pre_hook(
            lambda _unet, _args, given, name=name: read[name].append(given["encoder_hidden_states"]),
            with_kwargs=True,
        )
    guidance = SemanticGuidance(TanhGuide(), start=0.2)
    sample(components, num_inference_steps=4, autoguidance_start=0.0, guidance=guidance, targets=TARGETS)
    rows = len(TARGETS)
    conditioned = [context for context in read["strong"] if context.requires_grad]  # of the guided steps
    assert [torch.equal(weak, strong) for weak, strong in zip(read["weak"][1:3], conditioned)] == [True, True]
    assert not torch.equal(conditioned[0], conditioned[1])  # the words have moved
    tokens = components.adapter.num_tokens
    assert not torch.equal(read["weak"][0][:, -tokens:], components.adapter.null_tokens(rows))


def test_the_weak_unet_guides_from_a_share_of_the_steps_on():
    components = tiny_components()
    components.weak_unet = tiny_weak_unet()
    timesteps: list[int] = []
    components.weak_unet.register_forward_pre_hook(lambda _unet, args: timesteps.append(int(args[1])))
    late = sample(components, num_inference_steps=6, autoguidance_start=0.7).latents
    assert timesteps == [167, 1]
    never = sample(components, num_inference_steps=6, autoguidance_start=1.0).latents
    assert timesteps == [167, 1]
    assert torch.equal(never, sample(components, num_inference_steps=6, autoguidance_scale=0.0).latents)
    assert not torch.equal(never, late)


@pytest.mark.parametrize("scale", [-0.1, float("nan"), float("inf")])
def test_autoguidance_settings_are_checked(scale):
    with pytest.raises(InputError, match=f"autoguidance_scale={scale}; 0 or more"):
        sample(tiny_components(), autoguidance_scale=scale)
    with pytest.raises(InputError, match=rf"autoguidance_start={scale} is not in \[0, 1\]"):
        sample(tiny_components(), autoguidance_start=scale)


@pytest.mark.parametrize("size, dtype", [((8, 8), torch.bfloat16), ((5, 7), torch.float32)])
def test_a_weak_unet_takes_every_size_and_number_type(size, dtype):
    components = tiny_components(adapter=False)
    components.weak_unet = tiny_weak_unet()
    for model in (components.unet, components.text_encoder, components.weak_unet):
        model.to(dtype)
    samples = denoise(
        components,
        SamplingConfig(num_inference_steps=2, eta=0.0),
        torch.randn(2, 4, *size),
        prompt_embeds=encode_prompt(components, PROMPTS[:2]),
        empty_embeds=encode_prompt(components, ["", ""]),
    )
    assert samples.latents.shape == (2, 4, *size) and samples.latents.isfinite().all()
