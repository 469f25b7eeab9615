import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0

from synfer_ray.diffusion.attention import DecoupledAttnProcessor, cross_attention_blocks, install_processors
from synfer_ray.diffusion.au_adapter import AUAdapter
from synfer_ray.errors import InputError
from tests.tiny import tiny_adapter, tiny_unet

torch.set_num_threads(1)


def inputs(unet: UNet2DConditionModel, rows: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(1)
    return torch.randn(rows, 4, 16, 16), torch.randn(rows, 12, unet.config.cross_attention_dim)


def reference_attention(attn: Attention, queries, keys, values) -> torch.Tensor:
    """Softmax attention of one head at a time, in double precision."""
    heads = [part.double().chunk(attn.heads, dim=-1) for part in (queries, keys, values)]
    return torch.cat(
        [torch.softmax(q @ k.mT / k.shape[-1] ** 0.5, dim=-1) @ v for q, k, v in zip(*heads)], dim=-1
    )


def test_finds_the_sixteen_blocks_and_leaves_self_attention_alone():
    unet = tiny_unet()
    processors = install_processors(unet)
    assert len(processors) == len(cross_attention_blocks(unet)) == 16
    for name, processor in unet.attn_processors.items():
        expected = DecoupledAttnProcessor if "attn2" in name else AttnProcessor2_0
        assert type(processor) is expected


def test_a_unet_without_cross_attention_is_refused():
    unet = tiny_unet(
        down_block_types=("DownBlock2D",) * 4,
        up_block_types=("UpBlock2D",) * 4,
        mid_block_type="UNetMidBlock2D",
    )
    with pytest.raises(InputError, match="attn2"):
        install_processors(unet)


@torch.no_grad()
def test_plain_text_gives_the_output_of_diffusers_bit_for_bit():
    unet = tiny_unet()
    latents, text = inputs(unet)
    expected = unet(latents, 500, text).sample
    install_processors(unet)
    assert torch.equal(unet(latents, 500, text).sample, expected)


@torch.no_grad()
def test_output_is_text_attention_plus_scaled_au_attention():
    unet = tiny_unet()
    adapter = tiny_adapter(unet)
    adapter.attach(unet, scale=0.7)
    block = 3
    attn = cross_attention_blocks(unet)[block][1]
    pixels, text = torch.randn(2, 5, attn.query_dim), torch.randn(2, 12, 16)
    action_units = torch.randn(2, adapter.num_tokens, 16)

    output = attn(pixels, encoder_hidden_states=torch.cat([text, action_units], dim=1))

    queries, layer = attn.to_q(pixels), adapter.layers[block]
    expected = reference_attention(attn, queries, attn.to_k(text), attn.to_v(text))
    expected += 0.7 * reference_attention(attn, queries, layer.to_k(action_units), layer.to_v(action_units))
    torch.testing.assert_close(output, attn.to_out[0](expected.float()), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("with_adapter", [False, True])
def test_every_block_captures_its_text_map_and_the_output_stays_the_same(with_adapter):
    unet = tiny_unet()
    latents, context = inputs(unet)
    adapter = tiny_adapter(unet) if with_adapter else None
    if adapter:
        context = torch.cat([context, adapter.null_tokens(len(context))], dim=1)
    processors = install_processors(unet, adapter)
    expected = unet(latents, 1, context).sample
    for processor in processors:
        processor.capture = []

    assert torch.equal(unet(latents, 1, context).sample, expected)

    maps = [captured for processor in processors for captured in processor.capture]
    assert sorted(captured.shape[1] for captured in maps) == [4] + 5 * [16] + 5 * [64] + 5 * [256]
    for captured in maps:
        assert captured.shape[2] == 12
        torch.testing.assert_close(captured.sum(-1), torch.ones(captured.shape[:2]))


@torch.no_grad()
def test_a_captured_map_is_the_mean_over_heads():
    unet = tiny_unet()
    processors = install_processors(unet)
    attn = cross_attention_blocks(unet)[0][1]
    processors[0].capture = []
    pixels, text = torch.randn(2, 9, attn.query_dim), torch.randn(2, 12, 16)
    attn(pixels, encoder_hidden_states=text)
    scores = attn.get_attention_scores(
        attn.head_to_batch_dim(attn.to_q(pixels)), attn.head_to_batch_dim(attn.to_k(text))
    )
    torch.testing.assert_close(processors[0].capture[0], scores.unflatten(0, (2, attn.heads)).mean(1))


@torch.no_grad()
@pytest.mark.parametrize(("num_tokens", "varies"), [(1, False), (2, True), (8, True)])
def test_several_au_tokens_act_differently_on_each_pixel_and_one_token_cannot(num_tokens, varies):
    unet = tiny_unet()
    tiny_adapter(unet, num_tokens).attach(unet)
    attn = cross_attention_blocks(unet)[0][1]
    pixels, text = 3 * torch.randn(1, 9, attn.query_dim), torch.randn(1, 12, 16)
    tokens = 3 * torch.randn(1, num_tokens, 16)

    def au_output(scale: float) -> torch.Tensor:
        attn.processor.adapter.scale = scale
        return attn(pixels, encoder_hidden_states=torch.cat([text, tokens], dim=1))

    difference = au_output(1.0) - au_output(0.0)
    assert difference.abs().max() > 0.01
    assert (difference.std(dim=1).max() > 0.01) == varies


def test_the_state_dict_of_the_unet_stays_that_of_a_plain_model():
    unet = tiny_unet()
    keys = set(unet.state_dict())
    AUAdapter.for_unet(unet).attach(unet)
    assert set(unet.state_dict()) == keys
