"""`fit` on Ray Train: any number of workers, checkpoints in shared storage, resumed under the same name."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from synfer_ray.config import FitConfig, WorkersConfig
from synfer_ray.training.checkpoints import load_average
from synfer_ray.training.data import gather
from synfer_ray.training.loop import Objective, fit

if TYPE_CHECKING:
    import ray.data

Build = Callable[[], Objective]


def train(
    name: str, build: Build, rows: "ray.data.Dataset", config: FitConfig, workers: WorkersConfig, runs: str
) -> tuple[Objective, dict[str, Any]]:
    """Trains an objective on Ray Train.

    Args:
        name: the run's name; a run of this name that `runs` already holds is continued.
        build: makes the objective with its initial weights; called on every worker and once more here.
        rows: training rows with `sample_id`; every worker gathers all and draws its own share of a batch.
        runs: folder or URI for checkpoints, reachable from all nodes.

    Returns:
        The objective with the averaged weights, and the last reported metrics.
    """
    from ray.train import CheckpointConfig, DataConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    trainer = TorchTrainer(
        _work,
        train_loop_config={"build": build, "config": config},
        datasets={"rows": rows},
        dataset_config=DataConfig(datasets_to_split=[]),
        scaling_config=ScalingConfig(
            num_workers=workers.num_workers,
            use_gpu=workers.use_gpu,
            resources_per_worker={"CPU": workers.num_cpus} | ({"GPU": 1} if workers.use_gpu else {}),
        ),
        run_config=RunConfig(
            name=name,
            storage_path=runs if "://" in runs else str(Path(runs).resolve()),
            checkpoint_config=CheckpointConfig(num_to_keep=2),
            failure_config=FailureConfig(max_failures=workers.max_failures),
        ),
    )
    result = trainer.fit()
    objective = _seeded(build, config)
    assert result.checkpoint, "the loop reports a checkpoint with its last step"
    with result.checkpoint.as_directory() as folder:
        load_average(objective, Path(folder))
    return objective, dict(result.metrics or {})


def _work(settings: dict[str, Any]) -> None:
    import ray.train

    config: FitConfig = settings["config"]
    objective = _seeded(settings["build"], config)
    arrays = gather(ray.train.get_dataset_shard("rows").iter_batches(batch_size=1024, prefetch_batches=1))
    is_first = ray.train.get_context().get_world_rank() == 0

    def report(metrics: dict[str, float], folder: Path | None) -> None:
        checkpoint = ray.train.Checkpoint.from_directory(folder) if folder and is_first else None
        if is_first:
            print(" ".join(f"{key} {value:.5g}" for key, value in metrics.items()), flush=True)
        ray.train.report(metrics, checkpoint=checkpoint)

    with tempfile.TemporaryDirectory() as folder:
        if previous := ray.train.get_checkpoint():
            with previous.as_directory() as saved:
                fit(objective, arrays, config, Path(folder), report, resume_from=Path(saved))
        else:
            fit(objective, arrays, config, Path(folder), report)


def _seeded(build: Build, config: FitConfig) -> Objective:
    torch.manual_seed(config.seed)
    return build()
