from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from synfer_ray.calibration.networks import FERClassifier
from synfer_ray.config import ArchitectureConfig, TrainingConfig
from synfer_ray.errors import InputError
from synfer_ray.training.architectures import new_autoencoder
from synfer_ray.training.augment import from_uint8
from synfer_ray.training.critic import Critic, critic_loss, details, gradient_penalty
from synfer_ray.training.decoder import ALONE, DecoderObjective
from synfer_ray.training.loop import fit
from synfer_ray.training.parts import train_decoder
from tests.training.conftest import FIT, seeded, snapshot

DECODER_FIT = replace(FIT, steps=12, learning_rate=2e-3)


def rows(count: int = 24) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 255, (count, 32, 32, 3), np.uint8),
        "drawn": rng.normal(size=(count, 4, 16, 16)).astype(np.float16),
    }


def new_objective() -> DecoderObjective:
    torch.manual_seed(0)
    vae = new_autoencoder(ArchitectureConfig(image_size=32, latent_channels=4, vae_channels=[8, 8]))
    return DecoderObjective(vae, FERClassifier("plain", input_size=16, channels=(4, 4), hidden=8).eval())


def batch(which: slice = slice(4)) -> dict[str, torch.Tensor]:
    data = rows()
    return {
        "image": torch.from_numpy(data["image"][which]),
        "drawn": torch.from_numpy(data["drawn"][which]).float(),
    }


def test_a_sharpened_decoder_leaves_the_latents_alone(tmp_path):
    objective = new_objective()
    images = from_uint8(torch.from_numpy(rows()["image"][:4]))
    with torch.no_grad():
        latents, restored = objective.vae.encode(images).latent_dist.mean, objective.vae(images).sample
    seen, before = snapshot(objective.classifier), snapshot(objective.before)
    first = objective.eval()(batch(slice(-4, None)), seeded())[0].item()
    objective.calls += ALONE
    metrics: dict[str, float] = {}
    fit(objective, rows(), DECODER_FIT, tmp_path, lambda new, _: metrics.update(new))
    assert metrics["validation_loss"] < first
    assert torch.equal(snapshot(objective.classifier), seen)
    assert torch.equal(snapshot(objective.before), before)

    objective.export(tmp_path / "vae")
    exported = AutoencoderKL.from_pretrained(tmp_path / "vae").float()
    with torch.no_grad():
        torch.testing.assert_close(exported.encode(images).latent_dist.mean, latents, atol=5e-3, rtol=5e-3)
        assert (exported(images).sample - restored).abs().mean() > 1e-2


def test_the_critic_learns_alone_at_first():
    objective = new_objective().train()
    for calls, together in ((ALONE - 1, False), (ALONE, True)):
        objective.zero_grad()
        objective.calls.fill_(calls)
        objective(batch(), seeded())[0].backward()
        gradient = objective.vae.decoder.conv_out.weight.grad.abs().sum()
        assert bool(gradient > 0) == together
        assert all(value.grad.abs().sum() > 0 for value in objective.critic.parameters())


def test_the_critic_and_the_decoder_pull_in_opposite_directions():
    """The critic's own loss sends no gradient to the decoder, nor the decoder's doubt one to the critic."""
    objective = new_objective()
    objective.calls += ALONE + 1  # neither weighing nor penalty is due
    made = torch.randn(8, 3, 32, 32, requires_grad=True)
    real = from_uint8(torch.full((4, 32, 32, 3), 127, dtype=torch.uint8))
    critic_loss(objective.critic(real), objective.critic(made.detach())).backward()
    wanted = {name: value.grad.clone() for name, value in objective.critic.named_parameters()}
    objective.zero_grad()

    objective.vae.decode = lambda latents: SimpleNamespace(sample=made)
    grey = batch() | {"image": torch.full((4, 32, 32, 3), 127, dtype=torch.uint8)}
    objective.train()(grey, seeded())[0].backward()
    assert made.grad.abs().sum() > 0
    for name, value in objective.critic.named_parameters():
        torch.testing.assert_close(value.grad, wanted[name], atol=1e-5, rtol=1e-3)


def test_drawn_faces_may_change_in_their_details_alone():
    """4 x 4 pixels together stay what the decoder made of the latents before the training."""
    objective = new_objective()
    latents = torch.randn(2, 4, 16, 16)
    with torch.no_grad():
        made = objective.vae.decode(latents).sample
    checks = (torch.arange(32) % 2 * 2 - 1).float()
    assert objective.moved(made + 0.1 * checks, latents) < 1e-5
    torch.testing.assert_close(objective.moved(made + 0.1, latents), torch.tensor(0.1), atol=1e-4, rtol=0)


def test_every_trained_parameter_is_in_one_group():
    objective = new_objective()
    grouped = [id(value) for group in objective.parameter_groups() for value in group["params"]]
    assert sorted(grouped) == sorted(id(value) for value in objective.trained().values())


def test_a_group_learns_at_its_own_pace(tmp_path):
    """Adam's first step is as long as the learning rate, whatever the gradient."""
    objective = new_objective()
    objective.calls += ALONE
    before = snapshot(objective.critic)
    quick = replace(FIT, steps=1, learning_rate=1e-4, weight_decay=0.0, ema_decay=0.0)
    fit(objective, rows(), quick, tmp_path)
    step = (snapshot(objective.critic) - before).abs()
    assert step.median() == pytest.approx(1.5e-4, rel=0.05)


def test_a_critic_learns_to_tell_blurred_images_from_sharp_ones():
    torch.manual_seed(0)
    critic = Critic(width=8)
    optimizer = torch.optim.AdamW(critic.parameters(), 1e-3)
    sharp = F.interpolate(torch.rand(24, 3, 8, 8) * 2 - 1, size=32)
    blurred = F.avg_pool2d(sharp, 5, 1, 2)
    for _ in range(60):
        optimizer.zero_grad()
        critic_loss(critic(sharp[:16]), critic(blurred[:16])).backward()
        optimizer.step()
    with torch.no_grad():
        assert (critic(sharp[16:]).mean((1, 2, 3)) > critic(blurred[16:]).mean((1, 2, 3)).max()).all()


def test_details_of_a_plain_image_are_its_brightness_alone():
    shown = details(torch.full((2, 3, 16, 16), 0.25))
    torch.testing.assert_close(shown[:, 0], torch.full((2, 16, 16), 0.5))
    assert shown[:, 1:].abs().max() < 1e-5


def test_gradient_penalty_of_a_linear_critic_is_the_length_of_its_weights():
    weight = torch.randn(3, 4, 4)
    images = torch.randn(5, 3, 4, 4, requires_grad=True)
    penalty = gradient_penalty((images * weight).sum((1, 2, 3)), images)
    torch.testing.assert_close(penalty, weight.square().sum())


def test_no_draws_are_refused():
    with pytest.raises(InputError, match="decoder_draws=0"):
        train_decoder(TrainingConfig(decoder_draws=0))
