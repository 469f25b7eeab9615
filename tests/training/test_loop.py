from pathlib import Path

import numpy as np
import pytest
import torch

from synfer_ray.config import FitConfig
from synfer_ray.training.checkpoints import load_average
from synfer_ray.training.loop import (
    Objective,
    Worker,
    draw,
    fit,
    learning_rate_factor,
    precision,
    split,
)
from tests.tiny import tiny_unet

ROWS = {"x": np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)}
FIT = FitConfig(
    steps=8,
    batch_size=8,
    report_every=2,
    checkpoint_every=4,
    validation_rows=5,
    warmup_steps=2,
    ema_decay=0.5,
)


class Denoiser(Objective):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Sequential(
            torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3), torch.nn.Dropout(0.2)
        )
        self.frozen = torch.nn.Linear(3, 3).requires_grad_(False)

    def forward(self, batch, generator):
        noise = torch.randn(batch["x"].shape, generator=generator)
        return (self.layer(batch["x"] + noise) - self.frozen(noise)).square().mean(), {}


class Stopped(Exception):
    pass


def weights(objective: Objective) -> torch.Tensor:
    return torch.cat([value.flatten() for value in objective.state_dict().values()])


def test_gradient_checkpointing_spares_memory_and_changes_no_gradient(tmp_path):
    class OfUNet(Objective):
        def __init__(self):
            super().__init__()
            self.unet = tiny_unet().requires_grad_(True)

        def forward(self, batch, generator):
            states = batch["x"][:, :1, None].expand(-1, 2, 16)
            return self.unet(batch["x"].reshape(-1, 4, 8, 8), 7, states).sample.square().mean(), {}

    trained, runs = [], []
    for on in (False, True):
        objective = OfUNet()
        calls: list[int] = []
        objective.unet.up_blocks[1].resnets[0].register_forward_pre_hook(
            lambda *_, calls=calls: calls.append(1)
        )
        rows = {"x": np.random.default_rng(0).normal(size=(4, 256)).astype(np.float32)}
        config = FitConfig(
            steps=2, batch_size=2, validation_rows=0, warmup_steps=1, gradient_checkpointing=on
        )
        fit(objective, rows, config, tmp_path / str(on))
        trained.append(weights(objective))
        runs.append(len(calls))
    assert runs == [2, 4]
    assert torch.equal(*trained)


def test_a_resumed_run_ends_where_an_uninterrupted_one_does(tmp_path):
    whole = Denoiser()
    fit(whole, ROWS, FIT, tmp_path / "whole")

    def stop(metrics: dict, checkpoint: Path | None) -> None:
        if metrics["step"] == 6:
            raise Stopped

    with pytest.raises(Stopped):
        fit(Denoiser(), ROWS, FIT, tmp_path / "parts", stop)
    resumed, reports = Denoiser(), []
    fit(
        resumed,
        ROWS,
        FIT,
        tmp_path / "parts",
        lambda metrics, checkpoint: reports.append((metrics["step"], checkpoint)),
        resume_from=tmp_path / "parts",
    )
    assert torch.equal(weights(whole), weights(resumed))
    assert [step for step, _ in reports] == [6, 8]
    assert [bool(checkpoint) for _, checkpoint in reports] == [False, True]


def test_the_checkpoint_holds_the_averaged_weights(tmp_path):
    trained, loaded = Denoiser(), Denoiser()
    fit(trained, ROWS, FIT, tmp_path)
    assert not torch.equal(weights(trained), weights(loaded))
    load_average(loaded, tmp_path)
    assert torch.equal(weights(trained), weights(loaded))


def test_held_out_rows_are_never_drawn_and_an_epoch_draws_every_other_row_once():
    rows = {"x": np.arange(50, dtype=np.float32)}
    training, validation = split(rows, 10)
    assert set(validation["x"]) == set(range(40, 50))
    steps = [draw(training, 8, step, seed=3, worker=Worker())["x"] for step in range(5)]
    assert sorted(torch.cat(steps).tolist()) == list(range(40))


def test_workers_share_a_global_batch():
    alone = draw(ROWS, 8, 5, seed=1, worker=Worker())["x"]
    shares = [draw(ROWS, 8, 5, seed=1, worker=Worker(rank, 2))["x"] for rank in range(2)]
    together = torch.stack(shares, 1).flatten(0, 1)
    assert torch.equal(alone, together)


def test_the_learning_rate_warms_up_stays_and_decays():
    config = FitConfig(steps=100, warmup_steps=10, decay_share=0.2)
    factors = [learning_rate_factor(step, config) for step in range(100)]
    assert factors[0] == pytest.approx(0.1)
    assert set(factors[10:80]) == {1.0}
    assert factors[90] == pytest.approx(0.5)
    assert factors[99] < 0.01


def test_half_precision_on_a_cpu_leaves_out_torch_s_slow_attention():
    query = torch.randn(1, 2, 4, 8, requires_grad=True)
    for mixed, is_fused in [("no", True), ("bf16", False)]:
        with precision(mixed, torch.device("cpu")):
            attended = torch.nn.functional.scaled_dot_product_attention(query, query, query)
        assert ("FlashAttention" in type(attended.grad_fn).__name__) == is_fused
    assert attended.dtype == torch.bfloat16
