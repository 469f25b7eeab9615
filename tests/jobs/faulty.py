"""Stages and drivers that fail on purpose.

python -m tests.jobs.faulty MOMENT key=value ...   runs the generate job, which is killed at the moment
python -m tests.jobs.faulty silent key=value ...   runs the generate job, which falls silent
"""

import os
import signal
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from synfer_ray.stages import shard_writer
from synfer_ray.stages.image_generator import ImageGenerator
from synfer_ray.stages.shard_writer import ShardWriter
from synfer_ray.storage import locations

POISON = 9
"""The plan row that the faulty generators stumble over."""
SILENT = "silent"


class DeadlyGenerator(ImageGenerator):
    """Dies whenever row POISON is in its hands."""

    def generate(self, rows, batch):
        if any(row["index"] == POISON for row in batch):
            os.kill(os.getpid(), signal.SIGKILL)
        super().generate(rows, batch)


class NaNGenerator(ImageGenerator):
    """Gives row POISON latents that are not finite."""

    def start(self, rows, generators):
        latents, step = super().start(rows, generators)
        for place, row in enumerate(rows):
            if row["index"] == POISON:
                latents[place] = torch.nan
        return latents, step


class SilentGenerator(ImageGenerator):
    """Falls silent for ever over its second shard the first time, as if Ray had lost what it reports."""

    shards = 0

    def __call__(self, table):
        self.shards += 1
        witness = Path(f"{self.config.output}-{SILENT}")
        if self.shards == 2 and not witness.exists():
            witness.touch()
            time.sleep(3600)
        return super().__call__(table)


@dataclass(frozen=True)
class MurderousWriter(ShardWriter):
    """Kills the driver and itself at one moment of its first commit."""

    moment: str = ""
    driver: int = 0

    def __call__(self, table):
        die_at(self.moment, self.driver)
        return super().__call__(table)


MOMENTS = {
    "before the write": (locations, "_replacing", "before", "data/"),
    "after the temporary file": (os, "replace", "before", "data/"),
    "after the rename": (os, "replace", "after", "data/"),
    "before the record": (locations, "_replacing", "before", "commits/"),
    "after the temporary record": (os, "replace", "before", "commits/"),
    "after the record": (os, "replace", "after", "commits/"),
}


def die_at(moment: str, driver: int) -> None:
    """Arranges that this process and the driver are killed at the moment."""
    module, name, when, folder = MOMENTS[moment]
    real = getattr(module, name)

    def deadly(*arguments):
        is_it = any(f"/{folder}" in str(argument) for argument in arguments)
        if when == "after":
            real(*arguments)
        if is_it:
            os.kill(driver, signal.SIGKILL)
            os.kill(os.getpid(), signal.SIGKILL)
        return real(*arguments) if when == "before" else None

    setattr(module, name, deadly)


def main(moment: str, *settings: str) -> None:
    """Runs the job."""
    from synfer_ray.cli import run_job
    from synfer_ray.config import GenerateConfig
    from synfer_ray.pipeline import generate

    if moment == SILENT:
        run_job(GenerateConfig, partial(generate, generator=SilentGenerator), settings)
    else:
        shard_writer.ShardWriter = partial(MurderousWriter, moment=moment, driver=os.getpid())
        run_job(GenerateConfig, generate, settings)


if __name__ == "__main__":
    main(*sys.argv[1:])
