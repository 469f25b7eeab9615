import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, StableDiffusionPipeline
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from synfer_ray.diffusion.components import Components, decode_latents, encode_prompt, load_components
from synfer_ray.diffusion.guidance import SemanticGuidance
from synfer_ray.diffusion.noise import row_generator
from synfer_ray.diffusion.sampling import pad_batch, predict_x0
from synfer_ray.errors import InputError
from tests.diffusion.samples import PROMPTS, TARGETS, TanhGuide, sample
from tests.tiny import save_components, tiny_components, tiny_scheduler, tiny_weak_unet

torch.set_num_threads(1)


def batch_sizes(components: Components) -> list[int]:
    """Fills with the batch size of every U-Net call to come."""
    sizes: list[int] = []
    components.unet.register_forward_pre_hook(lambda _unet, args: sizes.append(len(args[0])))
    return sizes


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("timestep", [1, 400, 981])
def test_equation_4_undoes_equation_1_and_agrees_with_the_sampler(prediction_type, timestep):
    scheduler = tiny_scheduler(prediction_type)
    clean, noise = torch.randn((2, 2, 4, 8, 8), dtype=torch.float64)
    timestep = torch.tensor(timestep)
    noisy = scheduler.add_noise(clean, noise, timestep)
    truth = noise if prediction_type == "epsilon" else scheduler.get_velocity(clean, noise, timestep)
    x0_hat = predict_x0(scheduler, truth, timestep, noisy)
    torch.testing.assert_close(x0_hat, clean, rtol=1e-4, atol=1e-4)
    scheduler.set_timesteps(50)
    torch.testing.assert_close(x0_hat, scheduler.step(truth, timestep, noisy).pred_original_sample)


def test_both_forms_of_equation_2_are_the_sampler_step():
    scheduler = tiny_scheduler()
    scheduler.set_timesteps(20)
    x_t, eps = torch.randn((2, 2, 4, 8, 8), dtype=torch.float64)
    t = torch.tensor(501)
    alpha_bar = np.cumprod(1 - np.linspace(0.00085**0.5, 0.012**0.5, 1000) ** 2)
    now, before = alpha_bar[501], alpha_bar[451]
    direction = (1 / before - 1) ** 0.5 - (1 / now - 1) ** 0.5
    printed = (before / now) ** 0.5 * x_t + before**0.5 * direction * eps
    by_x0 = before**0.5 * predict_x0(scheduler, eps, t, x_t) + (1 - before) ** 0.5 * eps
    step = scheduler.step(eps, t, x_t).prev_sample
    torch.testing.assert_close(step, printed, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(by_x0, printed, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "settings",
    [
        {"guidance_scale": 5.0},
        {"guidance_scale": 1.0},
        {"guidance_scale": 5.0, "guidance_rescale": 0.7},
        {"guidance_scale": 5.0, "eta": 1.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_gives_the_images_of_stable_diffusion_pipeline_bit_for_bit(tmp_path, prediction_type, settings):
    tiny = tiny_components(adapter=False, prediction_type=prediction_type)
    components = load_components(save_components(tiny, tmp_path / "model"))
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "model")
    pipeline.set_progress_bar_config(disable=True)
    for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        part.requires_grad_(False)  # torch may round otherwise for weights that learn
    expected = pipeline(
        PROMPTS,
        height=32,
        width=32,
        num_inference_steps=4,
        **settings,
        generator=[row_generator(seed) for seed in (1, 2, 3)],
        output_type="pt",
    ).images
    latents = sample(components, **settings).latents
    images = (decode_latents(components, latents) / 2 + 0.5).clamp(0, 1)
    assert torch.equal(images, expected)
    assert images.std() > 0.01


@pytest.mark.parametrize("steps", [3, 20, 25, 50])
def test_steps_full_of_noise_are_finite_where_a_schedule_starts_without_signal(steps):
    components = tiny_components(prediction_type="v_prediction")
    components.scheduler = DDIMScheduler.from_config(
        components.scheduler.config, rescale_betas_zero_snr=True, timestep_spacing="trailing"
    )
    latents = sample(components, num_inference_steps=steps, eta=1.0).latents
    assert latents.isfinite().all() and 0.5 < latents.std() < 2


@pytest.mark.parametrize("eta", [0.0, 0.7])
@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("guidance_scale, au_guidance_scale", [(3.0, None), (3.0, 2.0), (1.0, 2.0)])
def test_a_row_is_bit_identical_whatever_its_neighbours_are(guided, guidance_scale, au_guidance_scale, eta):
    components = tiny_components()
    components.weak_unet = tiny_weak_unet()
    scales = {"guidance_scale": guidance_scale, "au_guidance_scale": au_guidance_scale}
    options = {**scales, "guidance_rescale": 0.5, "eta": eta}
    if guided:
        options["guidance"] = SemanticGuidance(TanhGuide(), start=0.2)
    first = sample(components, targets=TARGETS, **options)
    others = sample(
        components,
        prompts=[PROMPTS[0], "a", "of of of"],
        seeds=(1, 77, 78),
        targets=torch.stack([TARGETS[0], torch.full((7,), 1 / 7), TARGETS[0]]),
        **options,
    )
    assert torch.equal(first.latents[0], others.latents[0])
    assert not torch.allclose(first.latents[1], others.latents[1], atol=0.1)


def test_forwards_are_batched_and_the_guided_branch_runs_once():
    components = tiny_components()
    sizes = batch_sizes(components)
    sample(components, guidance_scale=5.0)
    sample(components, guidance_scale=5.0, au_guidance_scale=5.0)
    assert sizes == [6] * 8
    sizes.clear()
    sample(components, guidance_scale=5.0, au_guidance_scale=2.0)
    assert sizes == [9] * 4
    sizes.clear()
    sample(components, guidance_scale=5.0, au_guidance_scale=2.0, au_tokens=None)
    assert sizes == [6] * 4  # no action units to weigh
    sizes.clear()
    sample(components, guidance_scale=1.0, au_guidance_scale=2.0)
    assert sizes == [6] * 4  # the empty prompt has no weight
    sizes.clear()
    sample(components, guidance_scale=1.0, au_tokens=None)
    assert sizes == [3] * 4
    sizes.clear()
    guided = {"guidance": SemanticGuidance(TanhGuide(), start=0.5), "targets": TARGETS}
    sample(components, **guided)
    assert sizes == [6, 6, 3, 3, 6]  # the third step is the guided one: its conditional branch runs apart
    sizes.clear()
    sample(components, guidance_scale=1.0, **guided)
    assert sizes == [3] * 4


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize("au_guidance_scale", [1.0, 2.0])
def test_a_text_scale_of_1_needs_no_empty_prompt(guided, au_guidance_scale):
    components = tiny_components()
    options = {"guidance": SemanticGuidance(TanhGuide(), start=0.5), "targets": TARGETS} if guided else {}
    options["au_guidance_scale"] = au_guidance_scale
    nearly = sample(components, guidance_scale=1.0 + 1e-6, **options)
    nothing = torch.full_like(encode_prompt(components, [""] * len(PROMPTS)), float("nan"))
    without = sample(components, guidance_scale=1.0, empty_embeds=nothing, **options)
    torch.testing.assert_close(without.latents, nearly.latents, rtol=1e-3, atol=1e-3)


def test_starts_in_the_middle_of_the_schedule():
    components = tiny_components()
    timesteps = []
    components.unet.register_forward_pre_hook(lambda _unet, args: timesteps.append(int(args[1])))
    sample(components, start_step=4, num_inference_steps=6)
    assert timesteps == [167, 1]


def test_action_units_and_their_own_scale_change_the_image():
    components = tiny_components()
    with_au = sample(components).latents
    without = sample(components, au_tokens=None).latents
    weaker = sample(components, au_guidance_scale=2.0).latents
    none = sample(components, au_guidance_scale=0.0).latents
    assert (with_au - without).abs().max() > (weaker - without).abs().max() > 0.1
    torch.testing.assert_close(none, without, rtol=1e-3, atol=1e-3)
    scaled_without = sample(components, au_tokens=None, au_guidance_scale=2.0).latents
    assert torch.equal(scaled_without, without)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_guidance_makes_the_final_image_fit_the_label_better(prediction_type):
    components, guide = tiny_components(prediction_type=prediction_type), TanhGuide()

    def final_loss(step_size: float) -> Tensor:
        guidance = SemanticGuidance(guide, step_size=step_size, start=0.2)
        samples = sample(components, guidance=guidance, targets=TARGETS, num_inference_steps=6)
        assert samples.guidance_skipped.tolist() == [0, 0, 0]
        return guidance.loss(decode_latents(components, samples.latents), TARGETS)

    unguided = final_loss(0.0)
    assert (final_loss(0.1) < unguided).all()
    assert (final_loss(-0.1) > unguided).all()


def test_guidance_gives_no_weight_a_gradient():
    components, guide = tiny_components(), TanhGuide()
    sample(components, guidance=SemanticGuidance(guide), targets=TARGETS)
    parts = (components.unet, components.vae, components.text_encoder, components.adapter, guide)
    assert all(parameter.grad is None for part in parts for parameter in part.parameters())


def test_rows_the_guide_cannot_help_are_sampled_unguided_and_counted():
    components, guide = tiny_components(), TanhGuide()
    hopeless = torch.tensor([[torch.nan], [1.0], [1.0]])
    guidance = SemanticGuidance(lambda images: guide(images) * hopeless, start=0.0)
    guided = sample(components, guidance=guidance, targets=TARGETS)
    plain = sample(components)
    assert guided.guidance_skipped.tolist() == [3, 0, 0]
    assert plain.guidance_skipped.tolist() == [0, 0, 0]
    torch.testing.assert_close(guided.latents[0], plain.latents[0], rtol=1e-4, atol=1e-4)
    assert (guided.latents[1:] - plain.latents[1:]).abs().amax(dim=(1, 2, 3)).min() > 1e-3


def test_a_faint_gradient_survives_half_precision():
    components, guide = tiny_components(), TanhGuide()
    for model in (components.unet, components.vae, components.text_encoder, components.adapter):
        model.half()
    guide.linear.weight *= 1e-6  # below the smallest float16 at the image
    guidance = SemanticGuidance(guide, start=0.2)
    assert sample(components, guidance=guidance, targets=TARGETS).guidance_skipped.tolist() == [0, 0, 0]


def test_another_decoder_can_show_the_guide_its_image():
    components = tiny_components()
    decoded = []

    def decode(latents: Tensor) -> Tensor:
        decoded.append(latents.shape)
        return nn.functional.interpolate(latents[:, :3], scale_factor=4)

    guidance = SemanticGuidance(TanhGuide(), start=0.5, decode=decode)
    components.vae.decoder.register_forward_pre_hook(lambda *_: pytest.fail("the autoencoder decoded"))
    assert sample(components, guidance=guidance, targets=TARGETS).guidance_skipped.tolist() == [0, 0, 0]
    assert decoded == [(3, 4, 8, 8)]


def test_a_masked_prompt_changes_the_guided_image():
    components, guidance = tiny_components(), SemanticGuidance(TanhGuide(), start=0.2)
    plain = sample(components)
    nothing = torch.zeros(3, 12, dtype=torch.bool)
    blocked = sample(components, guidance=guidance, targets=TARGETS, token_mask=nothing)
    assert blocked.guidance_skipped.tolist() == [2, 2, 2]
    torch.testing.assert_close(blocked.latents, plain.latents, rtol=1e-4, atol=1e-4)


def test_guidance_without_targets_is_refused():
    with pytest.raises(InputError, match="assigned label"):
        sample(tiny_components(), guidance=SemanticGuidance(TanhGuide()))


@given(st.lists(st.integers(), min_size=1, max_size=5), st.integers(5, 9))
def test_a_short_batch_is_padded_with_its_last_row(rows, size):
    padded = pad_batch(rows, size)
    assert len(padded) == size
    assert padded[: len(rows)] == rows
    assert set(padded[len(rows) :]) <= {rows[-1]}
