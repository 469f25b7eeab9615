"""One training loop for every model: AdamW, warm-up, EMA, clipping, and a resume that stays on its path.

The loop knows nothing of Ray: `ray_trainer` calls it in each Ray Train worker, and it runs as well on its
own. Batches, noise and dropout follow from (seed, step, rank) alone, so a resumed run repeats what an
uninterrupted one would have done.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.nn.attention import SDPBackend, sdpa_kernel

from synfer_ray.config import FitConfig
from synfer_ray.training.checkpoints import restore, save

Arrays = Mapping[str, np.ndarray]
Batch = dict[str, Tensor]
Report = Callable[[dict[str, float], Path | None], None]


class Objective(nn.Module):
    """A model together with its loss; subclasses freeze what is not trained."""

    def forward(self, batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, float]]:
        """Returns the scalar loss of a batch and figures to report."""
        raise NotImplementedError

    def final_metrics(self, held_out: Arrays, device: torch.device) -> dict[str, float]:
        """Figures of the trained model on the held-out rows, reported once at the end."""
        return {}

    def adopt(self, metrics: Mapping[str, float]) -> None:
        """Takes over what the last metrics say of the model itself, before it is exported."""

    def export(self, folder: Path) -> None:
        """Writes the trained model in the layout of a bundle component."""
        raise NotImplementedError

    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters that the optimiser updates, by name."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """The same as the optimiser's groups; `pace` multiplies the learning rate of one."""
        return [{"params": list(self.trained().values())}]


CPU = torch.device("cpu")


@dataclass(frozen=True)
class Worker:
    """The place of this process among the training workers."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU

    @classmethod
    def current(cls) -> "Worker":
        """Reads the rank from torch.distributed, where it is initialised, and takes a GPU if there is one."""
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        if dist.is_available() and dist.is_initialized():
            return cls(dist.get_rank(), dist.get_world_size(), device)
        return cls(device=device)


def fit(
    objective: Objective,
    arrays: Arrays,
    config: FitConfig,
    folder: Path,
    report: Report = lambda metrics, checkpoint: None,
    resume_from: Path | None = None,
) -> None:
    """Trains until `config.steps`, keeping `checkpoint.pt` in `folder`; leaves the EMA weights in place.

    Args:
        arrays: training rows; those of `validation_rows` are held out for the reported `validation_loss`.
        report: called on every worker with the metrics and, at checkpoints, the folder that holds them.
        resume_from: a folder with the `checkpoint.pt` to continue from.
    """
    from diffusers import ModelMixin
    from diffusers.training_utils import EMAModel

    torch.set_num_threads(config.num_threads)
    worker = Worker.current()
    objective.to(worker.device)
    if config.gradient_checkpointing:
        for model in objective.children():
            if isinstance(model, ModelMixin):  # of diffusers
                model.enable_gradient_checkpointing()
    parameters = list(objective.trained().values())
    optimizer = torch.optim.AdamW(
        objective.parameter_groups(),
        lr=config.learning_rate,
        betas=(0.9, 0.99),
        weight_decay=config.weight_decay,
        fused=True,
    )
    average = EMAModel(parameters, decay=config.ema_decay, use_ema_warmup=False)
    first = restore(resume_from, objective, optimizer, average) if resume_from else 0
    model = _distribute(objective, worker)

    training, validation = split(arrays, config.validation_rows)
    folder.mkdir(parents=True, exist_ok=True)
    recent: list[float] = []
    for step in range(first, config.steps):
        model.train()
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * learning_rate_factor(step, config) * group.get("pace", 1.0)
        batch = draw(training, config.batch_size, step, config.seed, worker)
        with precision(config.mixed_precision, worker.device):
            loss, figures = model(batch, step_generator(config.seed, step, worker))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
        optimizer.step()
        average.step(parameters)
        recent.append(loss.item())

        last = step + 1 == config.steps
        if last or (step + 1) % config.report_every == 0:
            metrics = {"step": step + 1, "loss": float(np.mean(recent)), **figures}
            if config.validation_rows:
                metrics |= evaluate(objective, average, validation, config, worker, last)
            recent.clear()
            checkpoint = None
            if last or (step + 1) % config.checkpoint_every == 0:
                checkpoint = folder
                if worker.rank == 0:
                    save(folder, objective, optimizer, average, step + 1)
            report(metrics, checkpoint)
    average.copy_to(parameters)
    objective.eval()


@contextmanager
def precision(mixed: str, device: torch.device) -> Iterator[None]:
    """The arithmetic of a forward pass: float32, or torch's mixture with bfloat16 if `mixed` is `bf16`.

    On CPUs the backward pass of torch's fused attention is several times slower in bfloat16, so attention is
    then computed step by step.
    """
    with ExitStack() as stack:
        if mixed == "bf16":
            stack.enter_context(torch.autocast(device.type, torch.bfloat16))
            if device.type == "cpu":
                stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        yield


def evaluate(
    objective: Objective, average: Any, validation: Arrays, config: FitConfig, worker: Worker, last: bool
) -> dict[str, float]:
    """Loss and figures of the EMA weights on the held-out rows, with the same noise every time."""
    parameters = list(objective.trained().values())
    rows = len(next(iter(validation.values())))
    totals: dict[str, float] = {}
    average.store(parameters)
    average.copy_to(parameters)
    objective.eval()
    with torch.no_grad():
        for start in range(0, rows, config.batch_size):
            batch = to_tensors(
                {key: value[start : start + config.batch_size] for key, value in validation.items()},
                worker.device,
            )
            loss, figures = objective(batch, step_generator(config.seed, start, Worker(device=worker.device)))
            share = min(config.batch_size, rows - start) / rows
            for name, value in {"loss": loss.item(), **figures}.items():
                totals[name] = totals.get(name, 0.0) + share * value
        final = objective.final_metrics(validation, worker.device) if last else {}
    average.restore(parameters)
    return {f"validation_{name}": value for name, value in totals.items()} | final


def split(arrays: Arrays, validation_rows: int) -> tuple[Arrays, Arrays]:
    """Splits off the last rows; the callers order rows by sample id, so the split is the same every time."""
    rows = len(next(iter(arrays.values())))
    cut = rows - held_out_rows(rows, validation_rows)
    training = {key: value[:cut] for key, value in arrays.items()}
    validation = {key: value[cut:] for key, value in arrays.items()}
    return training, validation


def held_out_rows(rows: int, validation_rows: int) -> int:
    """How many of `rows` are held out: never more than a fifth."""
    return min(validation_rows, rows // 5)


def draw(arrays: Arrays, batch_size: int, step: int, seed: int, worker: Worker) -> Batch:
    """This worker's share of the global batch of a step: epochs of permutations, without replacement."""
    rows = len(next(iter(arrays.values())))
    positions = np.arange(step * batch_size, (step + 1) * batch_size)
    epochs, offsets = np.divmod(positions, rows)
    permutations = {
        epoch: np.random.default_rng([seed, epoch]).permutation(rows) for epoch in set(epochs.tolist())
    }
    indices = np.array([permutations[epoch][offset] for epoch, offset in zip(epochs.tolist(), offsets)])
    mine = indices[worker.rank :: worker.size]
    return to_tensors({key: value[mine] for key, value in arrays.items()}, worker.device)


def to_tensors(arrays: Arrays, device: torch.device) -> Batch:
    """Copies numpy arrays to the device; half-precision floats become float32."""
    tensors = {key: torch.from_numpy(np.ascontiguousarray(value)).to(device) for key, value in arrays.items()}
    return {key: value.float() if value.dtype == torch.float16 else value for key, value in tensors.items()}


def step_generator(seed: int, step: int, worker: Worker) -> torch.Generator:
    """Noise of one step on one worker; also seeds the global generator, which dropout uses."""
    state = int(np.random.SeedSequence([seed, step, worker.rank]).generate_state(1, np.uint64)[0] >> 1)
    torch.manual_seed(state)
    return torch.Generator(worker.device).manual_seed(state)


def learning_rate_factor(step: int, config: FitConfig) -> float:
    """Linear warm-up, then constant, then a cosine over the last `decay_share` of the steps."""
    warmup = min(1.0, (step + 1) / max(1, config.warmup_steps))
    decay_steps = config.decay_share * config.steps
    into_decay = step - (config.steps - decay_steps)
    return warmup if into_decay <= 0 else warmup * 0.5 * (1 + math.cos(math.pi * into_decay / decay_steps))


def _distribute(objective: Objective, worker: Worker) -> nn.Module:
    if worker.size == 1:
        return objective
    return nn.parallel.DistributedDataParallel(objective, find_unused_parameters=True)
