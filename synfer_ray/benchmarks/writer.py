"""What a durable shard costs beside its Parquet encoding alone (P6)."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow as pa
import pyarrow.parquet as pq

from synfer_ray.benchmarks.cost import Cost, interleave
from synfer_ray.benchmarks.stand_in import stand_in
from synfer_ray.plan import Plan
from synfer_ray.stages.calibrator import Calibrator
from synfer_ray.stages.planner import Planner
from synfer_ray.storage.bundle import FERANNO
from synfer_ray.storage.schema import reject_schema, sample_schema
from synfer_ray.storage.shards import COMMITS, DATA, commit_shard, parquet_options


def measure_writer(plan: Plan, rows: int, image_size: int, repetitions: int) -> dict[str, list[Cost]]:
    """Returns one ratio a repetition for P6: a plain Parquet write against hash, fsync, rename and commit.

    Both write `rows` samples with noise images to new files in the temporary folder, with the same options;
    the disk is idle when they begin, as a flush would also wait for what another file left in its queue.
    """
    data, rejects = settled_shard(plan, rows, image_size), reject_schema().empty_table()
    options = parquet_options(data.schema)
    with TemporaryDirectory() as folder:

        def clear() -> None:
            shutil.rmtree(folder)
            for name in (DATA, COMMITS):
                (Path(folder) / name).mkdir(parents=True)
            os.sync()

        turns = interleave(
            {
                "plain": lambda: pq.write_table(data, Path(folder) / "plain.parquet", **options),
                "commit": lambda: commit_shard(folder, 0, rows - 1, data, rejects),
            },
            repetitions,
            before=clear,
        )
    return {"P6": [turn["plain"] / turn["commit"] for turn in turns]}


def settled_shard(plan: Plan, rows: int, image_size: int) -> pa.Table:
    """Returns a shard of accepted samples as the pipeline makes it, with pictures of noise."""
    config = replace(plan.config, voters=[FERANNO])
    table = Planner(replace(plan, config=config))(pa.table({"index": list(range(rows))}))
    table = stand_in(0, image_size)(config)(table)
    table = Calibrator(config.voters, config.vote)(table)
    return pa.Table.from_pylist(table.to_pylist(), schema=sample_schema(config.voters))
