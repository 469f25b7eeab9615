import pytest
import torch

from synfer_ray.diffusion.editing import LocalEdit
from tests.diffusion.samples import PROMPTS, sample
from tests.tiny import tiny_components

torch.set_num_threads(1)

LATENTS = tiny_components().latent_shape(32)
SAME_NOISE = (5, 5, 5)


def drawn(edit: LocalEdit | None, prompts=PROMPTS, eta: float = 1.0) -> torch.Tensor:
    components = tiny_components()
    units = torch.linspace(0, 1, 41).expand(3, 41)  # the same in all rows
    au_tokens = components.adapter.encode(units) if components.adapter else None
    return sample(components, prompts, SAME_NOISE, eta=eta, edit=edit, au_tokens=au_tokens).latents


def upper_half() -> torch.Tensor:
    mask = torch.zeros(LATENTS[1:])
    mask[: len(mask) // 2] = 1
    return mask


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_rows_differ_from_the_first_where_the_mask_lets_them(eta):
    latents, free = drawn(LocalEdit(upper_half()), eta=eta), upper_half().bool()
    first = latents[0]
    for other in latents[1:]:
        assert torch.equal(other[:, ~free], first[:, ~free])
        assert not torch.isclose(other[:, free], first[:, free]).any()


def test_the_first_row_is_what_it_is_without_an_edit():
    torch.testing.assert_close(drawn(LocalEdit(upper_half()))[0], drawn(None)[0])


def test_a_row_with_the_conditions_of_the_first_is_the_first():
    latents = drawn(LocalEdit(upper_half()), prompts=[PROMPTS[0], PROMPTS[1], PROMPTS[0]])
    torch.testing.assert_close(latents[2], latents[0])


def test_the_free_half_sees_what_stays():
    free = upper_half().bool()
    assert not torch.allclose(
        drawn(LocalEdit(upper_half()))[1:, :, free], drawn(None)[1:, :, free], atol=1e-3
    )


def test_the_less_strength_the_closer_rows_stay_to_the_first():
    everywhere = torch.ones(LATENTS[1:])
    moved = {}
    for strength in (0.25, 0.5, 1.0):
        latents = drawn(LocalEdit(everywhere, strength))
        moved[strength] = (latents[1:] - latents[:1]).abs().mean().item()
    assert 0 < moved[0.25] < 0.9 * moved[0.5] < 0.9 * moved[1.0]
    torch.testing.assert_close(drawn(LocalEdit(everywhere)), drawn(None))


def test_a_soft_mask_mixes_in_latents():
    latents = torch.randn(3, *LATENTS)
    blended = LocalEdit(torch.full(LATENTS[1:], 0.25)).blend(latents, 20, 20)
    torch.testing.assert_close(blended, 0.75 * latents[:1] + 0.25 * latents)


@pytest.mark.parametrize(
    ("strength", "steps", "shared"), [(0.8, 20, 4), (0.9, 10, 1), (0.85, 20, 3), (1.0, 9, 0)]
)
def test_the_first_steps_are_shared_whatever_floats_round_to(strength, steps, shared):
    latents = torch.randn(3, *LATENTS)
    edit = LocalEdit(torch.ones(LATENTS[1:]), strength)
    alike = [
        torch.equal(blended, latents) for blended in (edit.blend(latents, n + 1, steps) for n in range(steps))
    ]
    assert alike == [False] * shared + [True] * (steps - shared)
