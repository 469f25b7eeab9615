"""Ray as our jobs use it: started quietly, pools that fit the machine, progress, errors in plain words."""

import builtins
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from synfer_ray.config import PoolConfig
from synfer_ray.errors import InputError
from synfer_ray.progress import Progress
from synfer_ray.stall import until_silent
from synfer_ray.storage.locations import Location
from synfer_ray.storage.shards import Commit

if TYPE_CHECKING:
    from ray.data import Dataset

TABLES: dict[str, Any] = {"batch_format": "pyarrow", "batch_size": None}
"""A stage gets whole blocks: a block is one shard from end to end."""
LIGHT_CPUS = 0.25
"""What a stage without a model takes of a CPU."""
LIGHT_STAGES = 2
"""Such stages run at the two ends of a graph; Ray joins those that stand beside each other."""


@contextmanager
def ray_session(training: bool = False) -> Iterator[None]:
    """Uses the Ray that runs in this process or at RAY_ADDRESS, else starts one on this machine for the job.

    Args:
        training: shows what the workers print, and starts the dashboard, which Ray Train asks for the state
            of its actors.

    Raises:
        InputError: an actor or task was given input it cannot work with.
    """
    os.environ.setdefault(
        "RAY_ENABLE_AUTO_CONNECT", "0"
    )  # or what a stalled run left would join any Ray here
    import ray
    from ray.data import DataContext

    ours = not ray.is_initialized()
    if ours and os.environ.get("RAY_ADDRESS"):
        ray.init(logging_level=logging.WARNING)
    elif ours:
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        with _muted_stderr():
            ray.init(
                address="local",
                include_dashboard=training,
                log_to_driver=training,
                logging_level=logging.ERROR,
            )
    context = DataContext.get_current()
    context.target_max_block_size = None  # a block is a shard, however large
    context.enable_progress_bars = sys.stderr.isatty()
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.CRITICAL)
    try:
        yield
    except ray.exceptions.RayError as error:
        raise plain_error(error) from error
    finally:
        if ours:
            ray.shutdown()


def plain_error(error: Exception) -> Exception:
    """Returns the bad input, or the failure of a disk or object store, that a worker reports; else `error`.

    Ray sends the traceback of a worker's error as text alone.
    """
    raised = re.findall(r"^([\w.]*(?:Error|Exception)): (.+)$", str(error), re.MULTILINE)
    name, message = next((pair for pair in reversed(raised) if not pair[0].startswith("ray.")), ("", ""))
    kind = getattr(builtins, name, None)
    if name == "synfer_ray.errors.InputError":
        return InputError(message)
    if isinstance(kind, type) and issubclass(kind, OSError):
        return kind(message)
    return OSError(f"{name}: {message}") if name.startswith(("botocore.", "aiobotocore.")) else error


def fit_pools(
    pools: Sequence[PoolConfig], shards: int | None = None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Returns the keywords of `map_batches` for a stage without a model, and for one in each of the pools.

    Those of a pool are for `map_batches_internal`: where there is a GPU, `map_batches` demands a batch size
    and would put small blocks together, but a block is a shard. No pool gets more actors than there are
    `shards`: the others would load their models for nothing.
    """
    import ray
    from ray.data import ActorPoolStrategy

    resources = ray.cluster_resources()
    light, pools = share_cpus(pools, resources.get("CPU", 0), resources.get("GPU", 0), shards)
    strategies = [
        ActorPoolStrategy(min_size=pool.min_actors, max_size=pool.max_actors, initial_size=pool.min_actors)
        for pool in pools
    ]
    return TABLES | {"num_cpus": light}, [
        TABLES
        | {"compute": strategy, "num_cpus": pool.num_cpus, "num_gpus": pool.num_gpus}
        | {"resources": pool.resources}
        for strategy, pool in zip(strategies, pools)
    ]


def share_cpus(
    pools: Sequence[PoolConfig], cpus: float, gpus: float, shards: int | None = None
) -> tuple[float, list[PoolConfig]]:
    """Gives open pools a size, and shrinks all CPU shares until every stage finds room at once.

    Without this a pool of actors could take the last CPU, and the stages around it would wait for ever.

    Returns:
        the share of a CPU for a stage without a model, and the pools.
    """
    sized = [_sized(pool, cpus, gpus, shards) for pool in pools]
    wanted = LIGHT_STAGES * LIGHT_CPUS + sum((pool.min_actors or 0) * pool.num_cpus for pool in sized)
    scale = min(1.0, cpus / wanted) if cpus else 1.0
    return _share(LIGHT_CPUS * scale), [
        replace(pool, num_cpus=_share(pool.num_cpus * scale)) for pool in sized
    ]


def run_shards(
    dataset: "Dataset",
    rows: int,
    output: Location,
    settled: int = 0,
    actors: Mapping[str, int] | None = None,
) -> None:
    """Runs a dataset whose rows are the records of committed shards, and tells of its progress.

    Args:
        dataset: the graph.
        rows: how many rows it settles.
        output: names the run.
        settled: how many rows earlier runs settled.
        actors: how many actors there may be, by stage.

    Raises:
        Stalled: Ray has fallen silent.
    """
    with Progress(output, settled, rows, actors or {}) as progress:
        # without prefetching: a shard is counted when it comes, and not when the next one does
        batches = dataset.iter_batches(batch_size=1, batch_format="numpy", prefetch_batches=0)
        for shard in until_silent(batches):
            progress.add(Commit.from_json(shard["commit"].item()))


def _sized(pool: PoolConfig, cpus: float, gpus: float, shards: int | None) -> PoolConfig:
    room = gpus / pool.num_gpus if pool.num_gpus else cpus / pool.num_cpus
    smallest = pool.min_actors or (1 if pool.max_actors else max(1, int(room)))
    largest = max(smallest, pool.max_actors or 0)
    return replace(
        pool, min_actors=min(smallest, shards or smallest), max_actors=min(largest, shards or largest)
    )


def _share(cpus: float) -> float:
    return int(cpus * 10_000) / 10_000  # Ray counts in units of 1/10,000


@contextmanager
def _muted_stderr() -> Iterator[None]:
    """Ray's core writes its greeting to the file descriptor, past Python's sys.stderr."""
    stderr = os.dup(2)
    with open(os.devnull, "wb") as sink:
        os.dup2(sink.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(stderr, 2)
        os.close(stderr)
