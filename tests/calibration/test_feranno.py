import numpy as np
import pytest
import torch

from synfer_ray.calibration.features import UNetFeatures, extract_features
from synfer_ray.calibration.feranno import (
    Annotator,
    FERAnno,
    load_annotator,
    neutral_context,
    no_action_units,
    prompt_tokens,
)
from synfer_ray.diffusion.components import Components, encode_image, encode_prompt
from synfer_ray.errors import InputError
from synfer_ray.prompts.lint import NEUTRAL_PROMPT, names_other_expression
from synfer_ray.storage.weights import load_model, save_model
from synfer_ray.taxonomy.action_units import au_vector
from tests.tiny import tiny_components

ABLATIONS = [("features", "maps"), ("features",), ("maps",)]


@pytest.fixture(scope="module")
def components() -> Components:
    return tiny_components()


def annotator(components: Components, **settings) -> Annotator:
    torch.manual_seed(0)
    tokens = prompt_tokens(components, NEUTRAL_PROMPT)
    example = extract_features(components.unet, latents(1), 1, neutral_context(components), tokens)
    return Annotator(components, FERAnno.for_features(example, width=16), **settings)


def latents(rows: int = 2, size: int = 8) -> torch.Tensor:
    return torch.randn(rows, 4, size, size, generator=torch.Generator().manual_seed(0))


def made_features(size: int, rows: int = 3) -> UNetFeatures:
    torch.manual_seed(0)
    sides = [size // 8, size // 4, size // 2, size]
    return UNetFeatures(
        {side: torch.randn(rows, 6, side, side) for side in sides},
        {side: torch.rand(rows, 4, side, side) for side in sides},
    )


@pytest.mark.parametrize("size", [8, 64])
@pytest.mark.parametrize("branches", ABLATIONS)
def test_probabilities_at_both_latent_sizes(size: int, branches: tuple[str, ...]) -> None:
    inputs = made_features(size)
    head = FERAnno.for_features(inputs, width=16, branches=branches).eval()
    probs = head.predict(inputs)
    assert probs.shape == (3, 7)
    torch.testing.assert_close(probs.sum(1), torch.ones(3))


@pytest.mark.parametrize("branches", ABLATIONS)
def test_reads_the_branches_it_has_and_no_others(branches: tuple[str, ...]) -> None:
    inputs = made_features(8)
    head = FERAnno.for_features(inputs, width=16, branches=branches).eval()
    before = head.predict(inputs)
    for branch in ("features", "maps"):
        changed = made_features(8)
        grids = changed.features if branch == "features" else changed.attention
        for side in grids:
            grids[side] = grids[side].flip(1)
        assert torch.equal(head.predict(changed), before) == (branch not in branches)


@pytest.mark.parametrize("side", [1, 2, 4, 8])
def test_every_scale_reaches_the_answer(side: int) -> None:
    inputs = made_features(8)
    head = FERAnno.for_features(inputs, width=16).eval()
    inputs.features[side].requires_grad_()
    inputs.attention[side].requires_grad_()
    head(inputs)[:, 0].sum().backward()
    for grid in (inputs.features[side], inputs.attention[side]):
        assert grid.grad is not None and grid.grad.abs().max() > 0


@pytest.mark.parametrize("branches", ABLATIONS)
def test_learns_from_either_branch(branches: tuple[str, ...]) -> None:
    inputs, labels = made_features(8, rows=7), torch.arange(7)
    head = FERAnno.for_features(inputs, width=16, branches=branches, dropout=0.0)
    optimizer = torch.optim.AdamW(head.parameters(), lr=3e-3)
    for _ in range(60):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(inputs), labels).backward()
        optimizer.step()
    assert (head(inputs).argmax(1) == labels).all()


def test_head_survives_disk_with_its_temperature(tmp_path) -> None:
    inputs = made_features(8)
    head = FERAnno.for_features(inputs, width=16).eval()
    head.temperature = 2.5
    save_model(head, tmp_path)
    loaded = load_model(FERAnno, tmp_path)
    assert loaded.config == head.config
    assert torch.equal(loaded.predict(inputs), (head(inputs) / 2.5).softmax(-1))


def test_other_resolutions_are_refused() -> None:
    head = FERAnno.for_features(made_features(8), width=16).eval()
    with pytest.raises(InputError, match=r"\[1, 2, 4, 8\], not \[2, 4, 8, 16\]"):
        head(made_features(16))
    with pytest.raises(InputError, match=r"attention.*choices: features, maps"):
        FERAnno([1], [1], 1, branches=("attention",))


def test_the_prompt_names_no_expression_and_its_tokens_are_its_words_and_end(components) -> None:
    assert all(names_other_expression(NEUTRAL_PROMPT, expression) is None for expression in ("happy", "sad"))
    tokenizer = components.tokenizer
    ids = tokenizer(NEUTRAL_PROMPT, padding="max_length", max_length=12).input_ids
    kept = tokenizer.convert_ids_to_tokens(ids[prompt_tokens(components, NEUTRAL_PROMPT)])
    assert kept == ["a</w>", "photo</w>", "of</w>", "a</w>", "face</w>", "<|endoftext|>"]


@torch.no_grad()
def test_label_does_not_leak_from_the_caption_or_the_action_units(components) -> None:
    """The same latents, right after they were denoised as happy or as sad, get the same answer."""
    calibrator, unet = annotator(components), components.unet
    answers = []
    for word, unit in [("happy", "AU12"), ("sad", "AU15")]:
        action_units = torch.from_numpy(au_vector({unit: 1.0}))[None].expand(2, -1)
        text = encode_prompt(components, [f"a photo of a {word} face"] * 2)
        told = components.context(text, components.adapter.encode(action_units))
        unet(latents(), 500, encoder_hidden_states=told)
        answers.append((calibrator.from_latents(latents()).probs, extract_features(unet, latents(), 1, told)))
    (first, told_happy), (second, told_sad) = answers
    assert torch.equal(first, second)
    # The caption would have been seen, had it been let in.
    assert not torch.allclose(told_happy.features[8], told_sad.features[8], atol=1e-4)


@pytest.mark.parametrize("scale", [0.0, 0.4])
def test_the_scale_of_generation_does_not_move_the_answer(scale: float) -> None:
    parts = tiny_components()
    calibrator = annotator(parts)
    expected = calibrator.from_latents(latents()).probs
    parts.adapter.scale = scale
    assert torch.equal(calibrator.from_latents(latents()).probs, expected)
    assert parts.adapter.scale == scale


def test_an_adapter_does_not_move_the_answer() -> None:
    plain, adapted = tiny_components(adapter=False), tiny_components()
    for side, grid in annotator(adapted).features(latents()).features.items():
        assert torch.equal(grid, annotator(plain).features(latents()).features[side])


@torch.no_grad()
def test_condition_is_the_neutral_prompt_and_null_action_units(components) -> None:
    text, rest = neutral_context(components).split([12, 4], dim=1)
    assert torch.equal(text, encode_prompt(components, [NEUTRAL_PROMPT]))
    assert torch.equal(rest, components.adapter.null_tokens(1))
    assert neutral_context(tiny_components(adapter=False)).shape[1] == 12


def test_image_path_and_latent_path_agree(components) -> None:
    calibrator = annotator(components)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    expected = calibrator.from_latents(encode_image(components, images))
    answer = calibrator.from_images(images)
    assert torch.equal(answer.probs, expected.probs)
    np.testing.assert_array_equal(calibrator.predict(images.numpy()), expected.probs.numpy())
    assert [grid.shape for grid in answer.attention.values()] == [(2, 6, side, side) for side in (1, 2, 4, 8)]


def test_latents_enter_without_noise_at_timestep_one(components) -> None:
    calibrator = annotator(components)
    with no_action_units(components):
        expected = extract_features(
            components.unet, latents(), 1, neutral_context(components).expand(2, -1, -1), slice(1, 7)
        )
    for side, grid in calibrator.features(latents()).features.items():
        assert torch.equal(grid, expected.features[side])


def test_noise_follows_the_row_and_is_that_of_the_forward_process(components) -> None:
    noisy = annotator(components, add_noise=True)
    noise = torch.stack([torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(s)) for s in (5, 6)])
    signal = components.scheduler.alphas_cumprod[1]
    by_hand = signal.sqrt() * latents() + (1 - signal).sqrt() * noise
    expected = Annotator(components, noisy.head).from_latents(by_hand).probs
    torch.testing.assert_close(noisy.from_latents(latents(), seeds=[5, 6]).probs, expected)
    swapped = noisy.from_latents(latents().flip(0), seeds=[6, 5]).probs
    torch.testing.assert_close(swapped.flip(0), expected)


def test_annotator_loads_from_the_folder_of_the_components(tmp_path) -> None:
    parts = tiny_components()
    head = annotator(parts).head
    parts.folder = str(tmp_path)
    with pytest.raises(InputError, match=r"missing model file: .*feranno"):
        load_annotator(parts)
    save_model(head, tmp_path / "feranno")
    expected = Annotator(parts, head).from_latents(latents()).probs
    assert torch.equal(load_annotator(parts).from_latents(latents()).probs, expected)
