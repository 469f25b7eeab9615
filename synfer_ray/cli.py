"""`synfer <job> [--config x.yaml] [key=value ...]`: every job of `jobs/` as a command."""

import argparse
import importlib
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, NoReturn, TypeVar

from synfer_ray import config as schemas
from synfer_ray.errors import BAD_INPUT, FAILED, INTERRUPTED, InputError, RunFailed, choose
from synfer_ray.settings import describe, load_config
from synfer_ray.storage.locations import is_storage_error

Schema = TypeVar("Schema")


class Job(NamedTuple):
    """A command: what it does, the dataclass of its settings, and the function that runs it."""

    summary: str
    schema: type
    function: str


JOBS = {
    "quickstart": Job(
        "make some labelled faces with the embedded model", schemas.QuickstartConfig, "quickstart:quickstart"
    ),
    "generate": Job("make a labelled synthetic dataset", schemas.GenerateConfig, "pipeline:generate"),
    "calibrate": Job("check and correct the labels of faces", schemas.CalibrateConfig, "calibrate:calibrate"),
    "serve": Job("answer for images over HTTP and gRPC", schemas.ServeConfig, "serving.job:serve_calibrator"),
    "evaluate": Job("judge a generated dataset", schemas.EvaluateConfig, "evaluate:evaluate"),
    "study": Job("compare variants of the method", schemas.StudyConfig, "study:study"),
    "sweep": Job("show what each action unit does to a face", schemas.SweepConfig, "sweep:sweep"),
    "fetext": Job(
        "build image-text-AU training data from faces", schemas.FETextConfig, "fetext:build_fetext"
    ),
    "train": Job("train a model bundle on FEText", schemas.TrainingConfig, "training.bundle:train_bundle"),
    "status": Job("tell how far a run is", schemas.OutputConfig, "reporting.status:show_status"),
    "verify": Job("check every byte of a dataset", schemas.OutputConfig, "repair:check"),
    "repair": Job("make the damaged rows of a dataset again", schemas.OutputConfig, "repair:repair"),
    "benchmark": Job(
        "measure the engine's speed as ratios", schemas.BenchmarkConfig, "benchmarks.job:benchmark"
    ),
}
SETTINGS = """settings are key=value, nested ones key.sub=value, on top of a YAML file:
  synfer generate --config configs/fer64.yaml output=OUT num_images=350 seed=1
the same command again continues an interrupted run; status, verify and repair take its folder:
  synfer status OUT"""
EXIT_CODES = """exit codes: 0 done, 1 failed or damaged, 2 bad input or a busy output, 130 interrupted,
3 done with fewer images than accepted_per_class asks for; after 1 and 130 the same command continues"""


def main(argv: Sequence[str] | None = None) -> None:
    """The `synfer` command; `EXIT_CODES` says how it ends."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        lines = [f"  {name:<12}{job.summary}" for name, job in JOBS.items()]
        print(
            "\n".join(
                [
                    "usage: synfer <job> [--config x.yaml] [key=value ...]",
                    "",
                    "jobs:",
                    *lines,
                    "",
                    SETTINGS,
                    "",
                    EXIT_CODES,
                ]
            )
        )
        return
    try:
        job = JOBS[choose(arguments[0], JOBS, "job")]
    except InputError as error:
        _exit(error, BAD_INPUT)
    module, function = job.function.split(":")
    run_job(job.schema, getattr(importlib.import_module(f"synfer_ray.{module}"), function), arguments[1:])


def run_job(
    schema: type[Schema], function: Callable[[Schema], object], argv: Sequence[str] | None = None
) -> None:
    """Reads the settings and runs a job; it may be stopped by SIGINT and SIGTERM.

    Exits with one of `EXIT_CODES` and a message where it is clear what went wrong: the input, the run, the
    disk or the object store. Any other error ends in a traceback and 1.

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
    if schema is schemas.CalibrateConfig:
        parser.add_argument("--server", metavar="URL", help="the same as server=URL")
    arguments = parser.parse_intermixed_args(argv)
    settings = [
        f"output={setting}" if schema is schemas.OutputConfig and "=" not in setting else setting
        for setting in arguments.settings
    ]
    if getattr(arguments, "server", None):
        settings.append(f"server={arguments.server}")
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    config: Any = None
    try:
        function(config := load_config(schema, arguments.config, settings))
    except InputError as error:
        _exit(error, BAD_INPUT)
    except RunFailed as error:
        _exit(error, error.exit_code)
    except KeyboardInterrupt:
        _exit("stopped; the same command continues", INTERRUPTED)
    except Exception as error:
        if not is_storage_error(error):
            raise
        _exit(f"{type(error).__name__}: {error} (output={getattr(config, 'output', None)})", FAILED)


def _exit(message: object, code: int) -> NoReturn:
    print(f"synfer: {message}", file=sys.stderr)
    raise SystemExit(code)
