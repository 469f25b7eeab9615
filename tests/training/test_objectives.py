import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel

from synfer_ray.calibration.networks import FERClassifier
from synfer_ray.config import ArchitectureConfig, FERAnnoConfig, FitConfig
from synfer_ray.diffusion.au_adapter import AUAdapter
from synfer_ray.errors import InputError
from synfer_ray.storage.weights import load_model
from synfer_ray.taxonomy.action_units import ACTION_UNITS
from synfer_ray.training.architectures import new_autoencoder, new_scheduler, new_weak_unet
from synfer_ray.training.au_adapter import AUAdapterObjective
from synfer_ray.training.augment import from_uint8
from synfer_ray.training.autoencoder import AutoencoderObjective
from synfer_ray.training.builds import build_weak_unet
from synfer_ray.training.diffusion import DiffusionObjective, denoising_loss
from synfer_ray.training.experts import ActionUnitObjective, ExpressionObjective
from synfer_ray.training.feranno import FERAnnoObjective
from synfer_ray.training.joint import JointObjective
from synfer_ray.training.loop import fit
from synfer_ray.training.preview import PreviewObjective
from synfer_ray.training.weak_unet import WeakUNetObjective
from tests.tiny import save_components, tiny_components
from tests.training.conftest import FIT, seeded, snapshot


def rows(count: int = 24) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    action_units = rng.random((count, len(ACTION_UNITS))).astype(np.float32)
    action_units[:, 5] = np.nan
    return {
        "image": rng.integers(0, 255, (count, 32, 32, 3), np.uint8),
        "latents": rng.normal(size=(count, 4, 8, 8)).astype(np.float16),
        "input_ids": rng.integers(0, 50, (count, 12)),
        "uncued_ids": rng.integers(0, 50, (count, 12)),
        "action_units": action_units,
        "label_probs": rng.dirichlet(np.ones(7), count).astype(np.float32),
    }


def train(objective, columns, tmp_path) -> dict[str, float]:
    metrics: dict[str, float] = {}
    data = rows()
    fit(objective, {name: data[name] for name in columns}, FIT, tmp_path, lambda new, _: metrics.update(new))
    return metrics


def diffusion_objective(parts) -> DiffusionObjective:
    empty = torch.zeros(12, dtype=torch.int64)
    return DiffusionObjective(parts.unet, parts.text_encoder, parts.scheduler, empty)


def adapter_objective(parts) -> AUAdapterObjective:
    empty = torch.zeros(12, dtype=torch.int64)
    adapter = AUAdapter.for_unet(parts.unet, num_tokens=3)
    return AUAdapterObjective(parts.unet, parts.text_encoder, parts.scheduler, empty, adapter)


def joint_objective(parts) -> JointObjective:
    empty = torch.zeros(12, dtype=torch.int64)
    return JointObjective(parts.unet, parts.text_encoder, parts.scheduler, empty, parts.adapter)


def weak_objective(parts) -> WeakUNetObjective:
    empty = torch.zeros(12, dtype=torch.int64)
    weak_unet = new_weak_unet(ArchitectureConfig(weak_channels=[8, 8]), parts.unet)
    return WeakUNetObjective(weak_unet, parts.text_encoder, parts.adapter, parts.scheduler, empty)


class Echo(torch.nn.Module):
    """Predicts what it is told, whatever the input."""

    def __init__(self, answer: torch.Tensor):
        super().__init__()
        self.answer = answer

    def forward(self, latents, timesteps, tokens):
        return type("Output", (), {"sample": self.answer})


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction"])
def test_the_denoising_loss_is_the_weighted_error_of_the_schedulers_target(prediction_type):
    scheduler = new_scheduler(ArchitectureConfig(prediction_type=prediction_type))
    latents = torch.randn(5, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    loss = denoising_loss(Echo(torch.zeros_like(latents)), scheduler, latents, torch.zeros(5, 1, 1), seeded())

    generator = seeded()
    noise = torch.randn(latents.shape, generator=generator)
    alpha = scheduler.alphas_cumprod[torch.randint(0, 1000, (5,), generator=generator)].view(-1, 1, 1, 1)
    signal_to_noise = (alpha / (1 - alpha)).flatten()
    if prediction_type == "epsilon":
        target, weight = noise, torch.minimum(5 / signal_to_noise, torch.tensor(1.0))
    else:
        target = alpha.sqrt() * noise - (1 - alpha).sqrt() * latents
        weight = torch.minimum(6 / (signal_to_noise + 1), torch.tensor(1.0))
    torch.testing.assert_close(loss, (weight * target.square().mean((1, 2, 3))).mean())


def test_zero_terminal_snr_leaves_no_signal_at_the_last_step():
    scheduler = new_scheduler(ArchitectureConfig(prediction_type="v_prediction"))
    assert scheduler.alphas_cumprod[-1] < 1e-6
    scheduler.set_timesteps(10)
    assert scheduler.timesteps[0] == 999


def test_the_adapter_learns_and_the_diffusion_model_stays(tmp_path):
    parts = tiny_components()
    objective = adapter_objective(parts)
    adapter = objective.adapter
    before = snapshot(parts.unet), snapshot(parts.text_encoder), snapshot(adapter)
    train(objective, ["latents", "input_ids", "uncued_ids", "action_units"], tmp_path)
    assert torch.equal(before[0], snapshot(parts.unet))
    assert torch.equal(before[1], snapshot(parts.text_encoder))
    assert not torch.equal(before[2], snapshot(adapter))


def test_joint_training_moves_all_three_and_exports_what_loads(tmp_path):
    parts = tiny_components()
    parts.adapter.requires_grad_(False)
    objective = joint_objective(parts)
    modules = {"unet": parts.unet, "text_encoder": parts.text_encoder, "adapter": parts.adapter}
    before = {name: snapshot(module) for name, module in modules.items()}
    train(objective, ["latents", "input_ids", "uncued_ids", "action_units"], tmp_path)
    for name, module in modules.items():
        assert (snapshot(module) != before[name]).float().mean() > 0.9, name
    objective.export(tmp_path / "model")
    exported = UNet2DConditionModel.from_pretrained(tmp_path / "model" / "unet")
    torch.testing.assert_close(snapshot(exported), snapshot(parts.unet.float()))
    adapter = load_model(AUAdapter, tmp_path / "model" / "au_adapter")
    torch.testing.assert_close(snapshot(adapter), snapshot(parts.adapter), rtol=1e-3, atol=1e-3)


def test_joint_training_leaves_the_adapter_out_of_a_quarter_of_its_batches():
    parts = tiny_components()
    batch = {name: torch.from_numpy(value[:1]) for name, value in rows().items()}
    batch |= {"latents": batch["latents"].float()}
    objective = joint_objective(parts)
    generator = seeded()
    scales = []
    for training, times in ((True, 120), (False, 20)):
        for _ in range(times):
            objective.train(training)(batch, generator)
            scales.append(parts.adapter.scale)
    assert 0.15 < scales[:120].count(0.0) / 120 < 0.35
    assert scales[120:] == [1.0] * 20


@pytest.mark.parametrize("build", [diffusion_objective, adapter_objective, joint_objective, weak_objective])
def test_half_of_the_captions_keep_silent_on_action_units_in_training_alone(build):
    parts, batch = tiny_components(), {name: torch.from_numpy(value[:1]) for name, value in rows().items()}
    batch = {name: value.repeat(400, *[1] * (value.dim() - 1)) for name, value in batch.items()}
    batch |= {"latents": batch["latents"].float()}
    seen: list[torch.Tensor] = []
    objective = build(parts)
    parts.text_encoder.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    for training in (True, False):
        objective.train(training)(batch, seeded())
    trained, evaluated = ((ids == batch["uncued_ids"]).all(1).float().mean() for ids in seen)
    assert 0.35 < trained < 0.55  # half, less the empty prompts
    assert evaluated == 0


def test_full_fine_tuning_of_a_loaded_model_trains_the_whole_unet_alone(tmp_path):
    parts = tiny_components(adapter=False)
    before = snapshot(parts.unet), snapshot(parts.text_encoder)
    empty = torch.zeros(12, dtype=torch.int64)
    objective = DiffusionObjective(
        parts.unet, parts.text_encoder, parts.scheduler, empty, train_text_encoder=False
    )
    assert {name.split(".")[0] for name in objective.trained()} == {"unet"}
    train(objective, ["latents", "input_ids", "uncued_ids"], tmp_path)
    changed = snapshot(parts.unet) != before[0]
    assert changed.float().mean() > 0.9
    assert torch.equal(snapshot(parts.text_encoder), before[1])


def test_lora_changes_the_exported_unet_and_leaves_it_a_plain_one(tmp_path):
    parts = tiny_components()
    before = snapshot(parts.unet)
    empty = torch.zeros(12, dtype=torch.int64)
    objective = DiffusionObjective(
        parts.unet, parts.text_encoder, parts.scheduler, empty, lora_rank=2, train_text_encoder=False
    )
    assert all("lora" in name for name in objective.trained())
    train(objective, ["latents", "input_ids", "uncued_ids"], tmp_path)
    objective.export(tmp_path / "model")
    exported = UNet2DConditionModel.from_pretrained(tmp_path / "model" / "unet")
    assert snapshot(exported).shape == before.shape
    assert not torch.allclose(snapshot(exported), before, atol=1e-3)
    DDIMScheduler.from_pretrained(tmp_path / "model" / "scheduler")


def test_the_preview_comes_closer_to_the_autoencoders_images(tmp_path):
    parts = tiny_components()
    objective, before = PreviewObjective(parts.vae), snapshot(parts.vae)
    losses: list[float] = []
    config = FitConfig(
        steps=40, batch_size=8, report_every=10, checkpoint_every=40, validation_rows=0, warmup_steps=1
    )
    fit(
        objective, {"latents": rows()["latents"]}, config, tmp_path, lambda new, _: losses.append(new["loss"])
    )
    assert losses[-1] < 0.8 * losses[0]
    assert torch.equal(before, snapshot(parts.vae))


def test_the_weak_unet_alone_learns_to_denoise_and_is_exported_for_diffusers(tmp_path):
    parts = tiny_components()
    before = snapshot(parts.text_encoder), snapshot(parts.adapter)
    objective = weak_objective(parts)
    assert {name.split(".")[0] for name in objective.trained()} == {"weak_unet"}
    losses: list[float] = []
    config = FitConfig(
        steps=60,
        batch_size=8,
        learning_rate=3e-3,
        report_every=20,
        checkpoint_every=60,
        validation_rows=0,
        warmup_steps=1,
    )
    arrays = {name: rows()[name] for name in ("latents", "input_ids", "uncued_ids", "action_units")}
    fit(objective, arrays, config, tmp_path, lambda new, _: losses.append(new["loss"]))
    assert losses[-1] < 0.8 * losses[0]
    assert torch.equal(snapshot(parts.text_encoder), before[0])
    assert torch.equal(snapshot(parts.adapter), before[1])
    objective.export(tmp_path / "weak_unet")
    exported = UNet2DConditionModel.from_pretrained(tmp_path / "weak_unet")
    torch.testing.assert_close(snapshot(exported), snapshot(objective.weak_unet), rtol=1e-2, atol=1e-3)


def test_a_weak_unet_is_built_for_a_bundle_with_an_adapter(tmp_path):
    architecture = ArchitectureConfig(weak_channels=[8, 8])
    plain = save_components(tiny_components(adapter=False), tmp_path / "plain")
    with pytest.raises(InputError, match=r"plain has no au_adapter/.*train it first"):
        build_weak_unet(str(plain), architecture)
    bundle = save_components(tiny_components(), tmp_path / "bundle")
    objective = build_weak_unet(str(bundle), architecture)
    assert objective.weak_unet.config.cross_attention_dim == objective.adapter.config["cross_attention_dim"]


@pytest.mark.parametrize("branches", [["features", "maps"], ["features"], ["maps"]])
def test_feranno_learns_its_head_only(tmp_path, branches):
    parts = tiny_components()
    head = FERAnnoConfig(branches=branches, width=16, heads=2)
    objective = FERAnnoObjective(parts, np.full(7, 1 / 7), image_size=32, head=head)
    assert objective.head.config["branches"] == branches and objective.head.config["width"] == 16
    before = snapshot(parts.unet), snapshot(objective.head)
    metrics = train(objective, ["latents", "label_probs"], tmp_path)
    assert torch.equal(before[0], snapshot(parts.unet))
    assert not torch.equal(before[1], snapshot(objective.head))
    assert 0 < metrics["temperature"] < 100


def test_an_expert_fits_what_it_sees(tmp_path):
    objective = ExpressionObjective(FERClassifier("plain"), np.full(7, 1 / 7))
    losses = []
    config = FitConfig(
        steps=30, batch_size=8, report_every=10, checkpoint_every=30, validation_rows=0, warmup_steps=1
    )
    brightness = np.linspace(20, 230, 7).astype(np.uint8)
    images = np.zeros((28, 32, 32, 3), np.uint8)
    for index in range(28):
        images[index, : 4 * (index % 7) + 4] = brightness[index % 7]
    data = {"image": images, "label_probs": np.eye(7, dtype=np.float32)[np.arange(28) % 7]}
    fit(objective, data, config, tmp_path, lambda metrics, _: losses.append(metrics["loss"]))
    assert losses[-1] < 0.8 * losses[0]


def test_unknown_action_units_do_not_count():
    class Constant(torch.nn.Module):
        def forward(self, images):
            return torch.full((len(images), 41), 0.5)

    objective = ActionUnitObjective(Constant()).eval()
    target = torch.full((2, 41), torch.nan)
    target[:, 3] = 1.0
    batch = {"image": torch.zeros(2, 8, 8, 3, dtype=torch.uint8), "action_units": target}
    loss, figures = objective(batch, seeded())
    assert loss.item() == pytest.approx(np.log(2), rel=1e-4)
    assert figures["mean_error"] == pytest.approx(0.5)


def test_the_exported_autoencoder_has_normal_latents_and_restores_as_before(tmp_path):
    architecture = ArchitectureConfig(image_size=32, latent_channels=4, vae_channels=[8, 8])
    torch.manual_seed(0)
    objective = AutoencoderObjective(new_autoencoder(architecture))
    metrics = train(objective, ["image"], tmp_path)
    assert metrics["latent_std_max"] > metrics["latent_std_min"] > 0
    images = from_uint8(torch.from_numpy(rows()["image"][-4:]))  # the held-out rows
    with torch.no_grad():
        before = objective.vae(images).sample
        objective.export(tmp_path / "vae")
        exported = AutoencoderKL.from_pretrained(tmp_path / "vae").float()
        latents = exported.encode(images).latent_dist.mean
        torch.testing.assert_close(exported(images).sample, before, atol=2e-2, rtol=0)
    torch.testing.assert_close(latents.mean((0, 2, 3)), torch.zeros(4), atol=2e-2, rtol=0)
    torch.testing.assert_close(latents.std((0, 2, 3)), torch.ones(4), atol=2e-2, rtol=0)
    assert exported.config.scaling_factor == 1.0
