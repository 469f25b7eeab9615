import pytest
import torch

from synfer_ray.diffusion.preview import PreviewDecoder, load_preview
from synfer_ray.errors import InputError
from synfer_ray.storage.weights import save_model
from tests.tiny import tiny_components, tiny_taesd


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


def test_a_tiny_autoencoder_shows_what_its_own_decoder_does(tmp_path):
    model = tiny_taesd()
    model.save_pretrained(tmp_path)
    decode, latents = load_preview(tmp_path, tiny_components()), torch.randn(2, 4, 8, 8, requires_grad=True)
    images = decode(latents)
    assert images.shape == (2, 3, 32, 32)
    assert torch.equal(images, model.decode(latents).sample)  # its scaling factor is 1
    (gradient,) = torch.autograd.grad(images.square().sum(), latents)
    assert gradient.abs().sum() > 0


def test_our_preview_decoder_comes_back_in_the_number_type_of_the_model(tmp_path):
    saved = PreviewDecoder(latent_channels=4, factor=4, width=8)
    save_model(saved, tmp_path)
    components = tiny_components()
    latents = torch.randn(1, 4, 8, 8)
    assert torch.equal(load_preview(tmp_path, components)(latents), saved(latents))
    components.unet.to(torch.bfloat16)
    assert load_preview(tmp_path, components)(latents.bfloat16()).dtype == torch.bfloat16


def test_a_decoder_of_other_latents_is_refused(tmp_path):
    tiny_taesd(latent_channels=16).save_pretrained(tmp_path / "theirs")
    save_model(PreviewDecoder(latent_channels=8, factor=4, width=8), tmp_path / "ours")
    for folder, channels in (("theirs", 16), ("ours", 8)):
        with pytest.raises(InputError, match=f"{folder} decodes latents of {channels} channels, not of 4"):
            load_preview(tmp_path / folder, tiny_components())
    (tmp_path / "ours" / "config.json").write_text("[")
    for folder in ("ours", "nowhere"):
        with pytest.raises(InputError, match=f"missing or damaged model file.*{folder}"):
            load_preview(tmp_path / folder, tiny_components())
