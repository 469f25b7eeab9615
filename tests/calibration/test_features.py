from collections import Counter

import pytest
import torch

from synfer_ray.calibration.features import UNetFeatures, extract_features
from synfer_ray.diffusion.attention import cross_attention_blocks, install_processors
from tests.tiny import tiny_adapter, tiny_unet


def latents(size: int = 8, rows: int = 2) -> torch.Tensor:
    return torch.randn(rows, 4, size, size, generator=torch.Generator().manual_seed(0))


def context(tokens: int = 6, rows: int = 2) -> torch.Tensor:
    return torch.randn(rows, tokens, 16, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def unet() -> torch.nn.Module:
    unet = tiny_unet()
    install_processors(unet)
    return unet


@pytest.mark.parametrize("size", [8, 64])
@torch.no_grad()
def test_four_resolutions_from_the_traced_size(unet, size: int) -> None:
    found = extract_features(unet, latents(size), 1, context())
    sides = [size // 8, size // 4, size // 2, size]
    channels = [3 * width for width in (16, 16, 8, 8)]  # three outputs a level, as in Stable Diffusion
    shapes = [(2, width, side, side) for width, side in zip(channels, sides)]
    assert list(found.features) == sides and [tuple(x.shape) for x in found.features.values()] == shapes
    assert list(found.attention) == sides
    assert all(found.attention[side].shape == (2, 6, side, side) for side in sides)


@torch.no_grad()
def test_sixteen_blocks_in_groups_of_five_five_five_and_one(unet) -> None:
    sides: Counter[int] = Counter()
    for _, attention in cross_attention_blocks(unet):
        attention.register_forward_pre_hook(lambda _module, args: sides.update([args[0].shape[1]]))
    extract_features(unet, latents(), 1, context())
    assert sides == {64: 5, 16: 5, 4: 5, 1: 1}


@torch.no_grad()
def test_maps_match_attention_scores_of_diffusers(unet) -> None:
    recorded: dict[int, list[torch.Tensor]] = {}

    def scores(attention, args, kwargs) -> None:
        query = attention.head_to_batch_dim(attention.to_q(args[0]))
        key = attention.head_to_batch_dim(attention.to_k(kwargs["encoder_hidden_states"]))
        probabilities = attention.get_attention_scores(query, key).unflatten(0, (len(args[0]), -1)).mean(1)
        recorded.setdefault(round(args[0].shape[1] ** 0.5), []).append(probabilities)

    for _, attention in cross_attention_blocks(unet):
        attention.register_forward_pre_hook(scores, with_kwargs=True)
    found = extract_features(unet, latents(), 1, context(), slice(1, 4))
    for side, maps in recorded.items():
        mean = torch.stack(maps).mean(0)  # [B, HW, T]
        for row, column in [(0, 0), (side - 1, 0), (side // 2, side - 1)]:
            expected = mean[:, row * side + column, 1:4]
            torch.testing.assert_close(found.attention[side][:, :, row, column], expected)


@torch.no_grad()
def test_maps_over_all_text_tokens_sum_to_one(unet) -> None:
    for grid in extract_features(unet, latents(), 1, context()).attention.values():
        torch.testing.assert_close(grid.sum(1), torch.ones_like(grid[:, 0]))


@torch.no_grad()
def test_action_unit_tokens_are_no_text() -> None:
    unet = tiny_unet()
    adapter = tiny_adapter(unet)
    adapter.attach(unet)
    with_tokens = torch.cat([context(), adapter.null_tokens(2)], 1)
    found = extract_features(unet, latents(), 1, with_tokens)
    assert {grid.shape[1] for grid in found.attention.values()} == {6}


@torch.no_grad()
def test_recording_leaves_the_unet_as_it_was(unet) -> None:
    def run() -> torch.Tensor:
        return unet(latents(), 1, encoder_hidden_states=context()).sample

    before = run()
    extract_features(unet, latents(), 1, context())
    with pytest.raises(RuntimeError):
        extract_features(unet, latents(), 1, context()[..., :5])
    assert torch.equal(run(), before)
    assert all(attention.processor.capture is None for _, attention in cross_attention_blocks(unet))
    assert not any(module._forward_hooks for module in unet.modules())


@torch.no_grad()
def test_rows_do_not_depend_on_their_neighbours(unet) -> None:
    def first_row(found: UNetFeatures) -> list[torch.Tensor]:
        return [grid[0] for group in (found.features, found.attention) for grid in group.values()]

    together = extract_features(unet, latents(rows=3), 1, context(rows=3))
    other = latents(rows=3)
    other[1:] = 0
    for a, b in zip(first_row(together), first_row(extract_features(unet, other, 1, context(rows=3)))):
        torch.testing.assert_close(a, b)
