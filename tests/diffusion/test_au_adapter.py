import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor2_0

from synfer_ray.diffusion.attention import cross_attention_blocks
from synfer_ray.diffusion.au_adapter import AUAdapter
from synfer_ray.errors import InputError
from synfer_ray.storage.weights import load_model, save_model
from synfer_ray.taxonomy.action_units import ACTION_UNITS
from tests.tiny import tiny_adapter, tiny_unet

torch.set_num_threads(1)

SD15 = {"sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8}
SD21 = {
    "sample_size": 96,
    "cross_attention_dim": 1024,
    "attention_head_dim": [5, 10, 20, 20],
    "use_linear_projection": True,
}


@torch.no_grad()
def test_scale_zero_is_the_base_model_bit_for_bit():
    unet = tiny_unet()
    latents, text = torch.randn(2, 4, 8, 8), torch.randn(2, 12, 16)
    expected = unet(latents, 500, text).sample
    adapter = tiny_adapter(unet)
    context = torch.cat([text, adapter.encode(torch.rand(2, 41))], dim=1)
    adapter.attach(unet, scale=0.0)
    assert torch.equal(unet(latents, 500, context).sample, expected)
    adapter.scale = 1.0
    assert not torch.allclose(unet(latents, 500, context).sample, expected, atol=1e-3)
    adapter.detach(unet)
    assert torch.equal(unet(latents, 500, text).sample, expected)


@torch.no_grad()
def test_a_new_adapter_does_not_change_the_model_and_its_keys_are_the_text_keys():
    unet = tiny_unet()
    latents, text = torch.randn(2, 4, 8, 8), torch.randn(2, 12, 16)
    expected = unet(latents, 500, text).sample
    adapter = AUAdapter.for_unet(unet)
    adapter.attach(unet)
    context = torch.cat([text, adapter.encode(torch.rand(2, 41))], dim=1)
    assert torch.equal(unet(latents, 500, context).sample, expected)
    for layer, (_, attention) in zip(adapter.layers, cross_attention_blocks(unet)):
        assert torch.equal(layer.to_k.weight, attention.to_k.weight)


@torch.no_grad()
def test_null_zero_and_unknown_are_three_conditions():
    adapter = tiny_adapter(tiny_unet())
    zero = torch.zeros(1, 41)
    half_known = zero.clone()
    half_known[:, ::2] = torch.nan
    null, relaxed, partial = adapter.null_tokens(1), adapter.encode(zero), adapter.encode(half_known)
    for one, other in ((null, relaxed), (relaxed, partial), (null, partial)):
        assert not torch.allclose(one, other, atol=1e-2)
    assert torch.equal(adapter.encode(torch.full((1, 41), torch.nan)), null)


@torch.no_grad()
def test_dropped_rows_get_the_null_tokens_and_the_others_do_not_notice():
    adapter = tiny_adapter(tiny_unet())
    action_units = torch.rand(3, 41)
    tokens = adapter.encode(action_units, null_mask=torch.tensor([False, True, False]))
    assert torch.equal(tokens[1], adapter.null)
    assert torch.equal(tokens[[0, 2]], adapter.encode(action_units)[[0, 2]])


@torch.no_grad()
def test_action_units_without_training_labels_are_unknown():
    adapter = AUAdapter(16, [8], supported=["AU12", "AU06"])
    smile = torch.full((1, 41), torch.nan)
    smile[0, ACTION_UNITS.index("AU12")] = 0.8
    with_other = smile.clone()
    with_other[0, ACTION_UNITS.index("AU09")] = 1.0
    assert torch.equal(adapter.encode(with_other), adapter.encode(smile))
    assert not torch.equal(adapter.encode(smile / 2), adapter.encode(smile))


def test_an_action_unit_that_does_not_exist_is_refused():
    with pytest.raises(InputError, match="AU99"):
        AUAdapter(16, [8], supported=["AU99"])


@pytest.mark.parametrize(("num_tokens", "learns"), [(1, False), (4, True)])
def test_keys_learn_with_several_tokens_only_and_the_frozen_unet_never(num_tokens, learns):
    unet = tiny_unet()
    adapter = tiny_adapter(unet, num_tokens).requires_grad_(True)
    adapter.attach(unet)
    context = torch.cat([torch.randn(2, 12, 16), adapter.encode(torch.rand(2, 41))], dim=1)
    unet(torch.randn(2, 4, 16, 16), 500, context).sample.square().mean().backward()
    key_gradient = max(float(layer.to_k.weight.grad.abs().max()) for layer in adapter.layers)
    value_gradient = max(float(layer.to_v.weight.grad.abs().max()) for layer in adapter.layers)
    assert value_gradient > 1e-6
    assert (key_gradient > 1e-3 * value_gradient) == learns
    assert all(parameter.grad is None for parameter in unet.parameters())


def test_a_saved_adapter_comes_back_the_same(tmp_path):
    unet = tiny_unet()
    adapter = AUAdapter.for_unet(unet, num_tokens=3, hidden_dim=8, supported=ACTION_UNITS[:5])
    save_model(adapter, tmp_path)
    loaded = load_model(AUAdapter, tmp_path)
    action_units = torch.rand(2, 41)
    assert torch.equal(loaded.encode(action_units), adapter.encode(action_units))
    assert loaded.config == adapter.config
    loaded.attach(unet)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cross_attention_dim": 8}, "cross_attention_dim 16 instead of 8"),
        ({"block_out_channels": (8, 8, 8, 16)}, "block_channels"),
        ({"layers_per_block": 1}, "block_channels"),
    ],
)
def test_an_adapter_of_another_unet_is_refused(changes, message):
    adapter = tiny_adapter(tiny_unet())
    other = tiny_unet(**changes)
    with pytest.raises(InputError, match=message):
        adapter.attach(other)
    assert all(type(processor) is AttnProcessor2_0 for processor in other.attn_processors.values())


@pytest.mark.parametrize(("settings", "parameters"), [(SD15, 859_520_964), (SD21, 865_910_724)])
def test_fits_the_true_stable_diffusion_unet(settings, parameters):
    with torch.device("meta"):
        unet = UNet2DConditionModel(**settings)
        adapter = AUAdapter.for_unet(unet, num_tokens=8)
    assert sum(parameter.numel() for parameter in unet.parameters()) == parameters
    channels = [320] * 2 + [640] * 2 + [1280] * 2 + [1280] * 3 + [640] * 3 + [320] * 3 + [1280]
    assert adapter.config["block_channels"] == channels
    adapter.attach(unet)
    context = torch.cat(
        [torch.empty(1, 77, settings["cross_attention_dim"], device="meta"), adapter.null_tokens(1)], dim=1
    )
    latents = torch.empty(1, 4, 64, 64, device="meta")
    assert unet(latents, torch.tensor(1, device="meta"), context).sample.shape == latents.shape
