"""What the engine adds to its stages: the Ray Data graph against a loop over the same (P1, P4, P10)."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from tempfile import TemporaryDirectory
from time import time

import pyarrow as pa

from synfer_ray.benchmarks.cost import Cost, CpuMeter, measure
from synfer_ray.benchmarks.stand_in import stand_in
from synfer_ray.pipeline import run, shards_of
from synfer_ray.plan import Plan
from synfer_ray.stages.calibrator import Calibrator
from synfer_ray.stages.image_generator import ImageGenerator
from synfer_ray.stages.planner import Planner
from synfer_ray.stages.shard_writer import ShardWriter
from synfer_ray.stages.voter import Voter
from synfer_ray.storage.bundle import FERANNO, bundle_image_size, find_bundle
from synfer_ray.storage.shards import read_commits

Stage = Callable[[pa.Table], pa.Table]


def measure_engine(plan: Plan, shards: int, repetitions: int) -> dict[str, list[Cost]]:
    """Returns one ratio a repetition for P1, P1 serial and P10.

    A repetition is a job of `shards` shards on a Ray started for it, and a loop over as many rows as the
    job's steady window has: all shards but the first.
    """
    ratios: dict[str, list[Cost]] = {"P1": [], "P1 serial": [], "P10": []}
    for window, start, stages in compare(plan, shards, repetitions):
        serial = total(stages.values())
        ratios["P1"].append(stages["ImageGenerator"] / window)
        ratios["P1 serial"].append(serial / window)
        ratios["P10"].append(start / (serial * (1 / (shards - 1))))
    return ratios


def measure_overlap(plan: Plan, shards: int, repetitions: int) -> dict[str, list[Cost]]:
    """Returns one ratio a repetition for P4 and P4 serial.

    The generator waits as long as the voters compute, so that the two slowest stages cost alike: one after
    the other takes twice the time of either.
    """
    generator = waiting_generator(plan, seconds_to_vote(plan))
    ratios: dict[str, list[Cost]] = {"P4": [], "P4 serial": []}
    for window, _, stages in compare(plan, shards, repetitions, generator):
        slowest = max(stages.values(), key=lambda cost: cost.wall)
        ratios["P4"].append(window / slowest)
        ratios["P4 serial"].append(total(stages.values()) / slowest)
    return ratios


def seconds_to_vote(plan: Plan) -> float:
    """Returns what the voters take for an image."""
    rows = plan.config.shard_rows
    loop = PlainLoop(plan, waiting_generator(plan, 0))
    loop(rows)  # the first batch is slow
    return loop(rows)["Voter"].wall / rows


def waiting_generator(plan: Plan, seconds_per_image: float) -> type:
    """Returns a stand-in for the generator, its images as large as the bundle's."""
    return stand_in(seconds_per_image, bundle_image_size(find_bundle(plan.config.bundle)))


def compare(
    plan: Plan, shards: int, repetitions: int, generator: type = ImageGenerator
) -> Iterator[tuple[Cost, Cost, dict[str, Cost]]]:
    """Yields the engine's steady window and start, and what the stages cost in a loop over the same rows."""
    loop = PlainLoop(plan, generator)
    rows = plan.config.shard_rows
    loop(rows)  # what is built once is not the loop's cost
    for _ in range(repetitions):
        window, start = run_engine(plan, shards, generator)
        yield window, start, loop(rows * (shards - 1))


def total(costs: Iterable[Cost]) -> Cost:
    """Returns the sum."""
    return sum(costs, start=Cost(0.0, 0.0))


def run_engine(plan: Plan, shards: int, generator: type) -> tuple[Cost, Cost]:
    """Runs the job; returns the cost of the steady window, and of all up to the first committed shard."""
    with TemporaryDirectory() as output, CpuMeter() as meter:
        started = time()
        rows = range(shards * plan.config.shard_rows)
        run(replace(plan, config=replace(plan.config, output=output)), rows, generator)
        commits = [datetime.fromisoformat(commit.committed_at).timestamp() for commit in read_commits(output)]
    first, last = min(commits), max(commits)
    return meter.cost(first, last), meter.cost(started, first)


@dataclass
class PlainLoop:
    """All stages of the job in this process, one after the other, with the models in memory."""

    plan: Plan
    generator_class: type = ImageGenerator

    def __post_init__(self) -> None:
        config = self.plan.config
        self.generator = self.generator_class(config)
        self.voter = Voter(config, [name for name in config.voters if name != FERANNO])

    def __call__(self, rows: int) -> dict[str, Cost]:
        """Makes `rows` rows; returns the cost of each stage by its name. The generator includes FERAnno."""
        config = self.plan.config
        costs: dict[str, Cost] = {}
        with TemporaryDirectory() as output:
            stages: list[Stage] = [
                Planner(self.plan),
                self.generator,
                self.voter,
                Calibrator(config.voters, config.vote),
                ShardWriter(output, config.voters),
            ]
            for shard in shards_of(range(rows), config.shard_rows):
                tables = [pa.table({"index": shard})]
                for stage in stages:
                    name = type(stage).__name__
                    costs[name] = costs.get(name, Cost(0.0, 0.0)) + timed(stage, tables)
        return costs


def timed(stage: Stage, tables: list[pa.Table]) -> Cost:
    """Appends to `tables` what the stage makes of the last of them."""
    return measure(lambda: tables.append(stage(tables[-1])))
