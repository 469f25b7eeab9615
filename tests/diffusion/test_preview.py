import pytest
import torch

from synfer_ray.diffusion.preview import PreviewDecoder


def test_a_latent_cell_spans_a_block_of_pixels():
    torch.manual_seed(0)
    preview = PreviewDecoder(latent_channels=4, factor=8, width=8)
    latents = torch.randn(2, 4, 16, 16)
    images = preview(latents)
    assert images.shape == (2, 3, 128, 128)

    changed = latents.clone()
    changed[0, :, 15, 15] += 1.0
    moved = (preview(changed) - images).abs().amax(1) > 0
    assert not moved[1].any()
    reach = 5  # five 3x3 convolutions
    assert not moved[0, : 8 * (15 - reach)].any()
    assert moved[0, 120:, 120:].any()


def test_it_has_a_gradient_on_the_latents():
    preview = PreviewDecoder(latent_channels=4, factor=2, width=8).requires_grad_(False)
    latents = torch.randn(1, 4, 8, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(preview(latents).square().sum(), latents)
    assert gradient.abs().sum() > 0
    assert preview.config == pytest.approx({"latent_channels": 4, "factor": 2, "width": 8})
