import pytest
import torch

from synfer_ray.diffusion.components import encode_prompt
from synfer_ray.diffusion.editing import Edit
from synfer_ray.diffusion.noise import initial_noise, next_noise, row_generator
from synfer_ray.diffusion.sampling import SamplingConfig, denoise
from synfer_ray.errors import InputError
from tests.diffusion.samples import PROMPTS
from tests.tiny import tiny_components, tiny_scheduler

torch.set_num_threads(1)

SEEDS = (1, 2, 3)
STEPS = 5


def edited(edit: Edit | None, eta: float = 1.0, strength: float = 0.6) -> torch.Tensor:
    """Continues random faces with three prompts; `edit` None has the same start and keeps nothing."""
    components = tiny_components()
    generators = [row_generator(seed) for seed in SEEDS]
    noise = next_noise(generators, faces().shape[1:])
    latents, start_step = everywhere(strength).start(noise, components.scheduler, STEPS)
    return denoise(
        components,
        SamplingConfig(STEPS, eta=eta),
        latents,
        start_step,
        generators=generators,
        prompt_embeds=encode_prompt(components, PROMPTS),
        empty_embeds=encode_prompt(components, [""] * len(PROMPTS)),
        edit=edit,
    ).latents


def faces() -> torch.Tensor:
    return initial_noise((7, 8, 9), tiny_components().latent_shape(32))


def everywhere(strength: float = 0.6) -> Edit:
    return Edit(faces(), strength, torch.ones(faces().shape[2:]))


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_what_the_mask_leaves_out_stays_to_the_bit(eta):
    mask = torch.zeros(faces().shape[2:])
    mask[: len(mask) // 2] = 1
    latents, kept = edited(Edit(faces(), 0.6, mask), eta), mask[None, None].expand_as(faces()) == 0
    assert torch.equal(latents[kept], faces()[kept])
    assert not torch.isclose(latents[~kept], faces()[~kept]).any(dim=-1).all()


def test_a_mask_of_the_whole_face_keeps_nothing():
    torch.testing.assert_close(edited(everywhere(), eta=0.0), edited(None, eta=0.0))


def test_neighbours_see_what_stays():
    """The free half is another one where the other half is put back in every step."""
    mask = torch.zeros(faces().shape[2:])
    mask[: len(mask) // 2] = 1
    free = mask.bool().expand_as(faces())
    assert not torch.allclose(edited(Edit(faces(), 0.6, mask), 0.0)[free], edited(None, 0.0)[free], atol=1e-3)


def test_what_stays_is_as_noisy_as_the_next_step_expects():
    scheduler, latents = tiny_scheduler(), faces()
    edit = Edit(latents, 1.0, torch.full(latents.shape[2:], 0.25))
    drawn, timestep = torch.ones_like(latents), torch.tensor([301])
    blended = edit.blend(drawn, scheduler, timestep, [row_generator(seed) for seed in SEEDS])
    alpha_bar = scheduler.alphas_cumprod[301]
    noise = initial_noise(SEEDS, latents.shape[1:])
    kept = alpha_bar.sqrt() * latents + (1 - alpha_bar).sqrt() * noise
    torch.testing.assert_close(blended, 0.25 * drawn + 0.75 * kept)


def test_an_edit_without_generators_is_refused():
    components = tiny_components()
    text = encode_prompt(components, PROMPTS)
    with pytest.raises(InputError, match="each row needs a generator"):
        denoise(
            components,
            SamplingConfig(STEPS, eta=0.0),
            faces(),
            prompt_embeds=text,
            empty_embeds=text,
            edit=everywhere(),
        )
