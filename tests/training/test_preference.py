import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from safetensors.torch import load

from synfer_ray.calibration.wholeness import WholenessNet
from synfer_ray.config import TrainingConfig
from synfer_ray.diffusion.components import load_components
from synfer_ray.errors import InputError
from synfer_ray.storage.weights import save_model
from synfer_ray.taxonomy.action_units import ACTION_UNITS
from synfer_ray.training.builds import build_preference
from synfer_ray.training.bundle import train_part
from synfer_ray.training.diffusion import denoising_errors, denoising_loss
from synfer_ray.training.loop import fit
from synfer_ray.training.parts import train_preference
from synfer_ray.training.preference import BETA, pair_up, preference
from tests.tiny_bundle import save_tiny_bundle
from tests.training.conftest import FIT, seeded, tiny_training, write_fetext


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> str:
    return str(save_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny"))


def pairs(count: int = 20) -> dict[str, np.ndarray]:
    """Better draws are bright, worse ones dark."""
    rng = np.random.default_rng(0)
    latents = rng.normal(size=(count, 2, 4, 8, 8)) * 0.1 + np.array([1, -1])[:, None, None, None]
    return {
        "latents": latents.astype(np.float16),
        "input_ids": rng.integers(0, 50, (count, 2, 12)),
        "action_units": rng.random((count, 2, len(ACTION_UNITS))).astype(np.float32),
    }


def as_batch(arrays: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    tensors = {name: torch.from_numpy(values) for name, values in arrays.items()}
    return tensors | {"latents": tensors["latents"].float()}


def test_the_untrained_model_is_of_two_minds(bundle):
    objective = build_preference(bundle).train()
    loss, figures = objective(as_batch(pairs(4)), seeded())
    torch.testing.assert_close(loss, torch.tensor(0.5).log().neg())
    assert figures["gained"] == 0


def test_the_loss_is_that_of_diffusion_dpo(bundle):
    objective = build_preference(bundle).eval()
    with torch.no_grad():
        objective.unet.conv_out.bias += 0.05
    batch = as_batch(pairs(3))
    loss, _ = objective(batch, seeded())

    generator = seeded()
    noise = torch.randn(3, 4, 8, 8, generator=generator)
    timesteps = torch.randint(0, 1000, (3,), generator=generator)
    gained = []
    for place in range(2):
        tokens = torch.cat(
            [
                objective.text_encoder(batch["input_ids"][:, place])[0],
                objective.adapter.encode(batch["action_units"][:, place]),
            ],
            dim=1,
        )
        inputs = objective.scheduler, batch["latents"][:, place], noise, timesteps, tokens
        with torch.no_grad():
            errors = [denoising_errors(net, *inputs) for net in (objective.reference, objective.unet)]
        gained.append(errors[0] - errors[1])
    expected = -F.logsigmoid(BETA * (gained[0] - gained[1])).mean()
    torch.testing.assert_close(loss, expected, rtol=1e-3, atol=1e-5)


def test_it_learns_to_prefer_and_only_the_unet_learns(bundle, tmp_path):
    objective = build_preference(bundle)
    frozen = {
        name: value.clone() for name, value in objective.named_parameters() if not name.startswith("unet.")
    }
    assert all(name.startswith("unet.") for name in objective.trained())
    metrics: dict[str, float] = {}
    settings = replace(FIT, steps=30, batch_size=8, report_every=30)
    fit(objective, pairs(), settings, tmp_path, lambda new, _: metrics.update(new))
    assert metrics["validation_preferred"] == 1
    for name, value in objective.named_parameters():
        if name in frozen:
            assert torch.equal(value, frozen[name]), name

    objective.export(tmp_path / "unet")
    before, exported = (UNet2DConditionModel.from_pretrained(f"{at}/unet") for at in (bundle, tmp_path))
    assert exported.state_dict().keys() == before.state_dict().keys()


def test_it_goes_as_far_as_its_stride_says(bundle, tmp_path):
    moved = {}
    for stride in (1.0, 3.0):
        objective = build_preference(bundle, stride)
        with torch.no_grad():
            objective.unet.conv_out.bias += 0.125
        objective.export(tmp_path / str(stride))
        exported = UNet2DConditionModel.from_pretrained(tmp_path / str(stride)).state_dict()
        before = UNet2DConditionModel.from_pretrained(f"{bundle}/unet").state_dict()
        moved[stride] = {name: exported[name] - before[name] for name in before}
    for name, step in moved[1.0].items():
        expected = 0.125 if name == "conv_out.bias" else 0.0
        torch.testing.assert_close(step, torch.full_like(step, expected), atol=1e-3, rtol=0)
        torch.testing.assert_close(moved[3.0][name], torch.full_like(step, 3 * expected), atol=1e-3, rtol=0)


def test_the_reference_reads_the_same_adapter(bundle):
    objective = build_preference(bundle)
    processors = objective.reference.attn_processors.values()
    adapters = [processor.adapter for processor in processors if hasattr(processor, "adapter")]
    assert adapters and all(adapter is objective.adapter for adapter in adapters)


def test_in_training_conditions_are_left_out_for_both_draws_of_a_pair(bundle):
    objective = build_preference(bundle)
    batch = as_batch(pairs(200))
    batch["action_units"][:, 1] = batch["action_units"][:, 0]
    batch["input_ids"][:, 1] = batch["input_ids"][:, 0]
    with torch.no_grad():
        told, asked = objective.train().tokens(batch, seeded()), objective.eval().tokens(batch, seeded())
    assert torch.equal(told[::2], told[1::2])
    text = batch["input_ids"].shape[2]
    no_text = (told[::2, :text] != asked[::2, :text]).any(dim=(1, 2))
    no_au = (told[::2, text:] != asked[::2, text:]).any(dim=(1, 2))
    assert 0.04 < no_text.float().mean() < 0.18 and 0.38 < no_au.float().mean() < 0.62
    assert no_au[no_text].all()


def test_denoising_loss_is_the_mean_of_the_errors(bundle):
    parts = load_components(bundle)
    latents, tokens = torch.randn(3, 4, 8, 8), torch.randn(3, 5, parts.unet.config.cross_attention_dim)
    tokens = parts.context(tokens)
    with torch.no_grad():
        loss = denoising_loss(parts.unet, parts.scheduler, latents, tokens, seeded())
        generator = seeded()
        noise = torch.randn(latents.shape, generator=generator)
        timesteps = torch.randint(0, 1000, (3,), generator=generator)
        errors = denoising_errors(parts.unet, parts.scheduler, latents, noise, timesteps, tokens)
    torch.testing.assert_close(loss, errors.mean())


def test_pairs_are_of_one_expression_and_in_order():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 5, 200), rng.normal(size=200)
    better, worse = pair_up(scores, labels, 300, rng).T
    assert (labels[better] == labels[worse]).all()
    assert (scores[better] > scores[worse]).all()
    assert np.bincount(labels[better]).tolist() == [60] * 5
    assert pair_up(scores[:2], labels[:2], 3, rng).shape == (0, 2)  # one draw of each makes no pair
    assert pair_up(scores, labels, 0, rng).shape == (0, 2)


def test_whole_draws_are_preferred_and_sure_ones_count_half_as_much():
    assert preference(np.array([0.8]), np.array([0.5])) > preference(np.array([0.4]), np.array([0.9]))
    np.testing.assert_allclose(preference(np.array([0.5]), np.array([0.25])), 2 * np.log(0.5))


def test_what_cannot_be_preferred_is_refused(tmp_path):
    with pytest.raises(InputError, match="preference_draws=0"):
        train_preference(TrainingConfig(preference_draws=0))
    with pytest.raises(InputError, match=r"preference_stride=0\.0 is no positive"):
        train_preference(TrainingConfig(preference_stride=0.0))
    with pytest.raises(InputError, match="no wholeness/"):
        train_preference(TrainingConfig(bundle=str(tmp_path)))


@pytest.mark.slow
@pytest.mark.usefixtures("two_cpus")
def test_a_model_learns_on_ray_train_from_its_own_draws(tmp_path):
    fit_settings = replace(FIT, steps=2, report_every=2, checkpoint_every=2)
    config = tiny_training(
        write_fetext(tmp_path / "fetext"),
        tmp_path,
        preference=fit_settings,
        preference_draws=240,
        preference_stride=3.0,
    )
    bundle = save_tiny_bundle(Path(config.bundle))
    save_model(WholenessNet(input_size=32, channels=(8, 8, 16)), bundle / "wholeness")
    file, record = bundle / "unet" / "diffusion_pytorch_model.safetensors", bundle / "training.json"
    seen = [file.read_bytes()]
    for _ in range(2):
        train_part(config, "preference")
        assert json.loads(record.read_text())["preference"]["metrics"]["stride"] == 3
        record.unlink()  # asked to learn on, it starts from what it is now
        seen.append(file.read_bytes())
    assert len(set(seen)) == 3
    weights = [torch.cat([value.flatten().float() for value in load(each).values()]) for each in seen]
    first, second = (after - before for before, after in pairwise(weights))
    assert F.cosine_similarity(first, second, dim=0) > -0.9  # and does not take back what it learnt
