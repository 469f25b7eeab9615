import pytest
import torch
from diffusers import StableDiffusionPAGPipeline

from synfer_ray.diffusion.components import decode_latents, load_components
from synfer_ray.diffusion.guidance import SemanticGuidance
from synfer_ray.diffusion.noise import row_generator
from synfer_ray.diffusion.perturbed_attention import install_perturbation, perturbed
from synfer_ray.errors import InputError
from tests.diffusion.test_sampling import PROMPTS, TARGETS, TanhGuide, batch_sizes, sample
from tests.tiny import save_components, tiny_components, tiny_unet

torch.set_num_threads(1)


def inputs(unet, rows=3):
    generator = torch.Generator().manual_seed(3)
    latents = torch.randn(rows, unet.config.in_channels, 8, 8, generator=generator)
    return latents, torch.randn(rows, 12, unet.config.cross_attention_dim, generator=generator)


@pytest.mark.parametrize("layers", [["down_blocks.0"], ["mid", "blocks.1", "up_blocks"]])
@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_gives_the_images_of_diffusers_own_pipeline(tmp_path, prediction_type, layers):
    tiny = tiny_components(adapter=False, prediction_type=prediction_type)
    components = load_components(save_components(tiny, tmp_path / "model"))
    parts = StableDiffusionPAGPipeline.from_pretrained(tmp_path / "model", pag_applied_layers=layers)
    parts.set_progress_bar_config(disable=True)
    expected = parts(
        PROMPTS,
        height=32,
        width=32,
        num_inference_steps=4,
        guidance_scale=5.0,
        pag_scale=3.0,
        generator=[row_generator(seed) for seed in (1, 2, 3)],
        output_type="pt",
    ).images
    options = {"guidance_scale": 5.0, "pag_applied_layers": layers}
    latents = sample(components, pag_scale=3.0, **options).latents
    images = (decode_latents(components, latents) / 2 + 0.5).clamp(0, 1)
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-4)
    without = (decode_latents(components, sample(components, **options).latents) / 2 + 0.5).clamp(0, 1)
    assert (images - without).abs().max() > 1e-2


@torch.no_grad()
def test_only_the_first_rows_are_perturbed_and_only_meanwhile():
    unet = tiny_unet()
    latents, context = inputs(unet)
    plain = unet(latents, 5, context).sample
    processors = install_perturbation(unet, ["mid", "up", "down"])
    assert len(processors) == 16
    with perturbed(processors, 1):
        first = unet(latents, 5, context).sample
    torch.testing.assert_close(first[1:], plain[1:])
    assert (first[0] - plain[0]).abs().max() > 1e-3
    torch.testing.assert_close(unet(latents, 5, context).sample, plain)


def test_an_interrupted_pass_leaves_nothing_perturbed():
    processors = install_perturbation(tiny_unet(), ["mid"])
    with pytest.raises(RuntimeError), perturbed(processors, 2):
        raise RuntimeError
    assert [processor.perturbed_rows for processor in processors] == [0]


def test_processors_are_installed_once():
    unet = tiny_unet()
    assert install_perturbation(unet, ["mid"]) == install_perturbation(unet, ["mid", "mid_block"])


@pytest.mark.parametrize(
    ("layers", "error"),
    [
        (["middle"], "'middle' matches none of"),
        (["mid", "blocks.9"], "'blocks.9' matches none of"),
        (["("], "'\\(' is no"),
    ],
)
def test_layers_that_match_nothing_are_refused(layers, error):
    with pytest.raises(InputError, match=f"pag_applied_layers: {error}"):
        install_perturbation(tiny_unet(), layers)


@pytest.mark.parametrize("au_guidance_scale", [None, 2.0])
@pytest.mark.parametrize("guided", [False, True])
def test_works_beside_action_units_and_semantic_guidance(guided, au_guidance_scale):
    components = tiny_components()
    options = {"au_guidance_scale": au_guidance_scale, "pag_scale": 2.0, "pag_applied_layers": ["down", "up"]}
    if guided:
        options["guidance"] = SemanticGuidance(TanhGuide(), start=0.5)
    sizes = batch_sizes(components)
    first = sample(components, targets=TARGETS, **options)
    contexts = 3 if au_guidance_scale is None else 4
    apart = [3 * (contexts - 1), 3]
    unguided = [3 * contexts]
    assert sizes == (2 * unguided + apart + unguided if guided else 4 * unguided)
    again = sample(
        components, prompts=[PROMPTS[0], "a", "of"], seeds=(1, 8, 9), targets=TARGETS[[0, 0, 0]], **options
    )
    assert torch.equal(first.latents[0], again.latents[0])
    weaker = sample(components, targets=TARGETS, **options | {"pag_scale": 0.5})
    assert not torch.allclose(first.latents, weaker.latents, atol=1e-2)
