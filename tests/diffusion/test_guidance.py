import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from synfer_ray.diffusion.components import Components, decode_latents
from synfer_ray.diffusion.guidance import SemanticGuidance, combine
from synfer_ray.diffusion.sampling import predict_x0
from synfer_ray.errors import InputError
from tests.tiny import tiny_components

torch.set_num_threads(1)


def linear_guide(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 7)).requires_grad_(False)


def test_combine_is_the_sum_of_two_directions():
    uncond, text, both = torch.randn(3, 2, 4)
    expected = uncond + 7.5 * (text - uncond) + 2.0 * (both - text)
    torch.testing.assert_close(combine(uncond, text, both, 7.5, 2.0), expected)
    torch.testing.assert_close(combine(uncond, text, both, 1.0, 1.0), both)
    torch.testing.assert_close(combine(uncond, text, both, 1.0, 0.0), text)


@settings(deadline=None)
@given(st.floats(0, 20), st.integers(0, 1000))
def test_with_equal_scales_the_text_prediction_does_not_matter(scale, seed):
    uncond, text, both = torch.randn((3, 2, 4), generator=torch.Generator().manual_seed(seed)).double()
    classifier_free = uncond + scale * (both - uncond)
    torch.testing.assert_close(combine(uncond, text, both, scale, scale), classifier_free)
    assert torch.equal(combine(uncond, uncond, both, scale, scale), classifier_free)


def test_loss_is_the_cross_entropy_of_each_row():
    guide, images = linear_guide(), torch.randn(3, 3, 32, 32)
    targets = torch.rand(3, 7).softmax(dim=1)
    expected = -(targets * torch.stack([guide(image[None])[0].log_softmax(0) for image in images])).sum(1)
    torch.testing.assert_close(SemanticGuidance(guide).loss(images, targets), expected)


@pytest.mark.parametrize(("norm", "length"), [("token", 0.1), ("sample", 0.1)])
def test_a_step_has_the_chosen_length_against_the_gradient(norm, length):
    embeds, gradient = torch.randn(2, 5, 6), 1e-4 * torch.randn(2, 5, 6)
    moved, skipped = SemanticGuidance(linear_guide(), step_size=length, norm=norm).update(embeds, gradient)
    step = moved - embeds
    lengths = step.norm(dim=-1) if norm == "token" else step.flatten(1).norm(dim=-1)
    torch.testing.assert_close(lengths, torch.full_like(lengths, length), rtol=1e-2, atol=0)
    cosine = nn.functional.cosine_similarity(step.flatten(1), gradient.flatten(1))
    assert (cosine < -0.9).all()
    assert not skipped.any()


def test_rows_without_a_usable_gradient_stay_and_are_counted():
    embeds, gradient = torch.randn(4, 5, 6), torch.randn(4, 5, 6)
    gradient[0, 2, 3] = torch.nan
    gradient[1] = 0
    gradient[2, 0, 0] = torch.inf
    moved, skipped = SemanticGuidance(linear_guide()).update(embeds, gradient)
    assert skipped.tolist() == [True, True, True, False]
    assert torch.equal(moved[:3], embeds[:3])
    assert (moved[3] != embeds[3]).all()


def test_masked_tokens_do_not_move_and_do_not_shorten_the_step():
    embeds, gradient = torch.randn(2, 5, 6), torch.randn(2, 5, 6)
    mask = torch.tensor([[False, True, True, False, False], [False, True, False, False, False]])
    moved, _ = SemanticGuidance(linear_guide(), norm="sample").update(embeds, gradient, mask)
    assert torch.equal((moved != embeds).any(dim=-1), mask)
    torch.testing.assert_close((moved - embeds).flatten(1).norm(dim=1), torch.full((2,), 0.1))


@pytest.mark.parametrize("norm", ["token", "sample"])
def test_the_update_of_a_row_does_not_depend_on_its_neighbours(norm):
    guidance = SemanticGuidance(linear_guide(), norm=norm)
    embeds, gradient = torch.randn(3, 5, 6), torch.randn(3, 5, 6)
    moved, _ = guidance.update(embeds, gradient)
    embeds[1:], gradient[1:] = 7.0, torch.nan
    assert torch.equal(guidance.update(embeds, gradient)[0][0], moved[0])


def guide_loss(components: Components, guidance: SemanticGuidance, embeds: Tensor, targets: Tensor) -> Tensor:
    """L_g of the clean image that one prediction at t = 601 estimates, from fixed latents."""
    latents = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(3))
    timestep = torch.tensor(601)
    noise = components.unet(latents, timestep, encoder_hidden_states=components.context(embeds)).sample
    return guidance.loss(
        decode_latents(components, predict_x0(components.scheduler, noise, timestep, latents)), targets
    )


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("norm", ["token", "sample"])
def test_descent_lowers_the_loss_of_every_row_and_the_printed_sign_raises_it(norm, prediction_type):
    components = tiny_components(prediction_type=prediction_type)
    embeds = torch.randn(2, 12, 16).requires_grad_()
    targets = torch.eye(7)[[1, 4]]
    guide = linear_guide()
    descent = SemanticGuidance(guide, step_size=0.01, norm=norm)
    ascent = SemanticGuidance(guide, step_size=-0.01, norm=norm)

    before = guide_loss(components, descent, embeds, targets)
    (gradient,) = torch.autograd.grad(before.sum(), embeds)
    with torch.no_grad():
        lower = guide_loss(components, descent, descent.update(embeds, gradient)[0], targets)
        higher = guide_loss(components, descent, ascent.update(embeds, gradient)[0], targets)

    assert (lower < before).all()
    assert (higher > before).all()


def test_guided_steps_start_late_and_spare_the_last_step():
    assert list(SemanticGuidance(linear_guide(), start=0.4).steps(10)) == [4, 5, 6, 7, 8]
    assert list(SemanticGuidance(linear_guide(), start=0.0).steps(3)) == [0, 1]
    assert list(SemanticGuidance(linear_guide(), start=0.4).steps(1)) == []


def test_an_unknown_norm_is_refused():
    with pytest.raises(InputError, match="batch"):
        SemanticGuidance(linear_guide(), norm="batch")
