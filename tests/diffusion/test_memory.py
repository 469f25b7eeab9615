import pytest
import torch
from torch._dynamo.testing import CompileCounter

from synfer_ray.calibration.feranno import Annotator, FERAnno
from synfer_ray.config import MemoryConfig, SamplingConfig
from synfer_ray.diffusion.components import Components, decode_latents, encode_image, encode_prompt
from synfer_ray.diffusion.guidance import SemanticGuidance
from synfer_ray.diffusion.memory import apply_levers
from synfer_ray.diffusion.noise import initial_noise
from synfer_ray.diffusion.sampling import denoise
from tests.diffusion.test_sampling import PROMPTS, TARGETS, TanhGuide
from tests.tiny import tiny_components

torch.set_num_threads(1)


def draw(components: Components, image_size: int = 32) -> torch.Tensor:
    """Guided latents; the last step is unguided, so both kinds run."""
    action_units = initial_noise((1, 2, 3), (41,)).abs().clamp(max=1)
    samples = denoise(
        components,
        SamplingConfig(num_inference_steps=4, eta=0.0),
        initial_noise((1, 2, 3), components.latent_shape(image_size)),
        prompt_embeds=encode_prompt(components, PROMPTS),
        empty_embeds=encode_prompt(components, [""] * 3),
        au_tokens=components.adapter.encode(action_units) if components.adapter else None,
        guidance=SemanticGuidance(TanhGuide(), start=0.5),
        targets=TARGETS,
    )
    assert samples.guidance_skipped.tolist() == [0, 0, 0]
    return samples.latents


def levers(**settings) -> Components:
    components = tiny_components()
    apply_levers(components, MemoryConfig(**settings))
    return components


@pytest.fixture(scope="module")
def plain() -> torch.Tensor:
    return draw(tiny_components())


def calls(module: torch.nn.Module) -> list[int]:
    """Fills with the batch size of every call to come."""
    sizes: list[int] = []
    module.register_forward_pre_hook(lambda _module, args: sizes.append(len(args[0])))
    return sizes


def test_no_lever_is_on_by_default(plain):
    assert torch.equal(draw(levers()), plain)


def test_gradient_checkpointing_computes_guided_steps_twice_and_changes_nothing(plain):
    seen = {}
    for on in (False, True):
        components = levers(gradient_checkpointing=on)
        parts = components.unet.up_blocks[1].resnets[0], components.vae.decoder.up_blocks[0].resnets[0]
        counts = [calls(part) for part in parts]
        assert torch.equal(draw(components), plain)
        seen[on] = [len(count) for count in counts]
    assert seen[False] == [5, 1]  # four steps, of which the guided one runs its conditional branch apart
    assert seen[True] == [6, 2]


def test_slices_go_through_the_autoencoder_one_by_one(plain):
    components = levers(vae_slicing=True)
    sizes = calls(components.vae.decoder.conv_in)
    assert torch.allclose(draw(components), plain, atol=1e-3)
    assert sizes == [1, 1, 1]
    whole = tiny_components()
    assert torch.allclose(decode_latents(components, plain), decode_latents(whole, plain), atol=1e-5)
    images = torch.randn(3, 3, 32, 32)
    assert torch.allclose(encode_image(components, images), encode_image(whole, images), atol=1e-5)


def test_tiles_keep_the_decoder_small_and_the_image_alike():
    torch.manual_seed(0)
    latents = torch.randn(1, 4, 24, 24)
    components = levers(vae_tiling=True)
    components.vae.decoder.register_forward_pre_hook(lambda _module, args: sides.append(args[0].shape[-1]))
    sides: list[int] = []
    tiled = decode_latents(components, latents)
    assert len(sides) > 1 and max(sides) < 24
    expected = decode_latents(tiny_components(), latents)
    assert torch.corrcoef(torch.stack([tiled.flatten(), expected.flatten()]))[0, 1] > 0.9
    latents.requires_grad_()
    decode_latents(components, latents).square().sum().backward()
    assert latents.grad.abs().amax(dim=(0, 1)).min() > 0  # guidance sees every place


def test_channels_last_changes_the_layout_only(plain):
    components = levers(channels_last=True)
    weights = components.unet.conv_in.weight, components.vae.decoder.conv_in.weight
    assert all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)
    assert torch.allclose(draw(components), plain, atol=1e-3)


@pytest.mark.slow
def test_a_compiled_model_draws_the_same_and_feranno_still_sees_what_it_reads(plain):
    """Traced by torch.compile, but run without its C++ backend, which would take minutes to build."""
    expected, components, counter = tiny_components(), tiny_components(), CompileCounter()
    compile_with = components.unet.compile
    components.unet.compile = lambda **options: compile_with(backend=counter, **options)
    apply_levers(components, MemoryConfig(compile=True))
    assert torch.allclose(draw(components), plain, atol=1e-3)
    frames = counter.frame_count
    assert frames > 0

    torch.manual_seed(0)
    features = Annotator(expected, torch.nn.Identity()).features(plain)
    head = FERAnno.for_features(features, width=8, heads=2).eval()
    probs = [Annotator(parts, head).from_latents(plain).probs for parts in (expected, components)]
    torch.testing.assert_close(probs[1], probs[0])
    assert counter.frame_count == frames  # with the hooks, every call would be compiled anew
