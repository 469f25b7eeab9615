"""`synfer <job> [--config x.yaml] [key=value ...]`: every job of `jobs/` as a command."""

import argparse
import importlib
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple, NoReturn, TypeVar

from synfer_ray import config as schemas
from synfer_ray.errors import InputError, choose
from synfer_ray.settings import describe, load_config

Schema = TypeVar("Schema")


class Job(NamedTuple):
    """A command: what it does, the dataclass of its settings, and the function that runs it."""

    summary: str
    schema: type
    function: str


JOBS = {
    "quickstart": Job(
        "make 70 labelled faces with the embedded model", schemas.QuickstartConfig, "quickstart:quickstart"
    ),
    "generate": Job("make a labelled synthetic dataset", schemas.GenerateConfig, "pipeline:generate"),
    "calibrate": Job("check and correct the labels of faces", schemas.CalibrateConfig, "calibrate:calibrate"),
    "evaluate": Job("judge a generated dataset", schemas.EvaluateConfig, "evaluate:evaluate"),
    "fetext": Job(
        "build image-text-AU training data from faces", schemas.FETextConfig, "fetext:build_fetext"
    ),
    "train": Job("train a model bundle on FEText", schemas.TrainingConfig, "training.bundle:train_bundle"),
    "benchmark": Job(
        "measure the engine's speed as ratios", schemas.BenchmarkConfig, "benchmarks.job:benchmark"
    ),
}
SETTINGS = """settings are key=value, nested ones key.sub=value, on top of a YAML file:
  synfer generate --config configs/fer64.yaml output=OUT num_images=350 seed=1
the same command again continues an interrupted run"""


def main(argv: Sequence[str] | None = None) -> None:
    """The `synfer` command: exit code 0, 1 for a failed run, 2 for bad input."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        lines = [f"  {name:<12}{job.summary}" for name, job in JOBS.items()]
        print(
            "\n".join(
                ["usage: synfer <job> [--config x.yaml] [key=value ...]", "", "jobs:", *lines, "", SETTINGS]
            )
        )
        return
    try:
        job = JOBS[choose(arguments[0], JOBS, "job")]
    except InputError as error:
        _exit(error, 2)
    module, function = job.function.split(":")
    run_job(job.schema, getattr(importlib.import_module(f"synfer_ray.{module}"), function), arguments[1:])


def run_job(
    schema: type[Schema], function: Callable[[Schema], None], argv: Sequence[str] | None = None
) -> None:
    """Reads the settings and runs a job.

    Exits with code 2 and a message on bad input, 130 when interrupted; other errors end in a traceback and 1.

    Args:
        schema: the dataclass of the settings.
        argv: `[--config x.yaml] [key=value ...]`; those of the process if None.
    """
    parser = argparse.ArgumentParser(
        description=schema.__doc__,
        epilog=f"{SETTINGS}\n\nsettings and their defaults (??? must be given):\n\n{describe(schema)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--config", metavar="x.yaml", help="a file of settings")
    parser.add_argument("settings", nargs="*", metavar="key=value", help="settings on top of the file")
    arguments = parser.parse_args(argv)
    try:
        function(load_config(schema, arguments.config, arguments.settings))
    except InputError as error:
        _exit(error, 2)
    except KeyboardInterrupt:
        _exit("stopped; the same command continues", 130)


def _exit(message: object, code: int) -> NoReturn:
    print(f"synfer: {message}", file=sys.stderr)
    raise SystemExit(code)
