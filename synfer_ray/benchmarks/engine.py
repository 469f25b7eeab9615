"""What the engine adds to its stages: the Ray Data graph against a loop over the same stages (P1, P10)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from tempfile import TemporaryDirectory
from time import time

import pyarrow as pa

from synfer_ray.benchmarks.cost import Cost, CpuMeter, measure
from synfer_ray.pipeline import run, shards_of
from synfer_ray.plan import Plan
from synfer_ray.stages.calibrator import Calibrator
from synfer_ray.stages.image_generator import ImageGenerator
from synfer_ray.stages.planner import Planner
from synfer_ray.stages.shard_writer import ShardWriter
from synfer_ray.stages.voter import Voter
from synfer_ray.storage.bundle import FERANNO
from synfer_ray.storage.shards import read_commits

Stage = Callable[[pa.Table], pa.Table]


def measure_engine(plan: Plan, shards: int, repetitions: int) -> dict[str, list[Cost]]:
    """Returns one ratio a repetition for P1, P1 serial and P10.

    A repetition is a job of `shards` shards on a Ray started for it, and a loop over as many rows as the
    job's steady window has: all shards but the first.
    """
    loop = PlainLoop(plan)
    rows = plan.config.shard_rows
    loop(rows)  # what is built once is not the loop's cost
    ratios: dict[str, list[Cost]] = {"P1": [], "P1 serial": [], "P10": []}
    for _ in range(repetitions):
        window, start = run_engine(plan, shards)
        generation, rest = loop(rows * (shards - 1))
        one_shard = (generation + rest) * (1 / (shards - 1))
        ratios["P1"].append(generation / window)
        ratios["P1 serial"].append((generation + rest) / window)
        ratios["P10"].append(start / one_shard)
    return ratios


def run_engine(plan: Plan, shards: int) -> tuple[Cost, Cost]:
    """Runs the job; returns the cost of the steady window, and of all up to the first committed shard."""
    with TemporaryDirectory() as output, CpuMeter() as meter:
        started = time()
        run(replace(plan, config=replace(plan.config, output=output)), range(shards * plan.config.shard_rows))
        commits = [datetime.fromisoformat(commit.committed_at).timestamp() for commit in read_commits(output)]
    first, last = min(commits), max(commits)
    return meter.cost(first, last), meter.cost(started, first)


@dataclass
class PlainLoop:
    """All stages of the job in this process, one after the other, with the models in memory."""

    plan: Plan

    def __post_init__(self) -> None:
        config = self.plan.config
        self.generator = ImageGenerator(config)
        self.voter = Voter(config, [name for name in config.voters if name != FERANNO])

    def __call__(self, rows: int) -> tuple[Cost, Cost]:
        """Makes `rows` rows; returns the cost of the generator, FERAnno and encoding in it, and the rest."""
        config = self.plan.config
        generation = rest = Cost(0.0, 0.0)
        with TemporaryDirectory() as output:
            settle: list[Stage] = [
                self.voter,
                Calibrator(config.voters, config.vote),
                ShardWriter(output, config.voters),
            ]
            for shard in shards_of(range(rows), config.shard_rows):
                tables = [pa.table({"index": shard})]
                rest += timed(Planner(self.plan), tables)
                generation += timed(self.generator, tables)
                for stage in settle:
                    rest += timed(stage, tables)
        return generation, rest


def timed(stage: Stage, tables: list[pa.Table]) -> Cost:
    """Appends to `tables` what the stage makes of the last of them."""
    return measure(lambda: tables.append(stage(tables[-1])))
