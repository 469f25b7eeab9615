"""Is a dataset what its commits say, and if not: make those rows again."""

from collections.abc import Callable
from typing import Any

from synfer_ray.calibrate import calibrate
from synfer_ray.config import CalibrateConfig, FETextConfig, GenerateConfig, OutputConfig
from synfer_ray.errors import RunFailed
from synfer_ray.fetext import build_fetext
from synfer_ray.pipeline import generate
from synfer_ray.settings import merge_config
from synfer_ray.storage.locations import Location
from synfer_ray.storage.manifest import read_manifest, read_run
from synfer_ray.storage.verify import verify

JOBS: dict[str, tuple[type, Callable[..., None]]] = {
    "generate": (GenerateConfig, generate),
    "calibrate": (CalibrateConfig, calibrate),
    "fetext": (FETextConfig, build_fetext),
}
"""The jobs that write datasets, as `run.json` names them."""


def check(config: OutputConfig) -> None:
    """Prints what is wrong with a dataset, or that nothing is.

    Raises:
        InputError: the folder holds no dataset.
        RunFailed: it is not whole.
    """
    if problems := verify(config.output):
        print("\n".join(problems))
        raise RunFailed(
            f"{config.output} is not whole ({len(problems)} problems); synfer repair makes it whole"
        )
    _print_whole(config.output)


def repair(config: OutputConfig) -> None:
    """Makes exactly the missing, damaged and doubled rows again, by the recorded settings.

    The models must be those of the plan, which the job checks before anything is removed.

    Raises:
        InputError: the folder holds no dataset, or the models are not those of its plan.
        RunFailed: it is still not whole.
    """
    run = read_run(config.output)
    schema, job = JOBS[run["job"]]
    settings: Any = merge_config(schema, run["config"], {"output": config.output})
    job(settings, repair=True)
    if problems := verify(config.output):
        raise RunFailed(f"{config.output} is still not whole: {'; '.join(problems[:3])}")
    _print_whole(config.output)


def _print_whole(output: Location) -> None:
    totals = read_manifest(output).totals
    print(f"{output} is whole: {totals['rows']:,} images and {totals['rejects']:,} rejects as committed")
