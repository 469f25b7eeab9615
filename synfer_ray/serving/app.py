"""The Ray Serve application.

serve run synfer_ray.serving.app:build_app bundle=fer64
serve deploy configs/serve/calibrator.yaml
synfer serve bundle=fer64
"""

import time
from typing import Any

from fastapi import FastAPI
from omegaconf import OmegaConf
from pydantic import RootModel, model_validator
from ray import serve
from ray.serve import Application

from synfer_ray.calibration.vote import check_roles, check_vote
from synfer_ray.config import ServeConfig
from synfer_ray.errors import InputError
from synfer_ray.serving.grpc_methods import GrpcMethods
from synfer_ray.serving.proxy import REPRODUCIBLE
from synfer_ray.serving.rest import rest_app
from synfer_ray.serving.service import CalibratorService
from synfer_ray.settings import merge_config
from synfer_ray.storage.bundle import find_bundle, model_fingerprints

HEALTH_PERIOD_S = 2.0
"""Seconds between two looks at a replica: a dead one is found as soon."""
PROBE_PERIOD_S = 10.0
"""Seconds after which a look has the models judge the probe again; under load that costs a batch."""
HEALTH_TIMEOUT_S = 60.0
"""Seconds a look may take on a busy machine, before the replica is replaced."""


class ServeArgs(RootModel[ServeConfig]):
    """The settings as Ray Serve hands them over: nested or with dots, numbers also as texts."""

    @model_validator(mode="before")
    @classmethod
    def read(cls, args: Any) -> ServeConfig:
        """Reads the settings as every job does.

        Raises:
            InputError: a key is unknown (with the nearest one), or a value has a wrong type.
        """
        if isinstance(args, ServeConfig):
            return args
        as_typed = {key: value for key, value in args.items() if _is_typed(key, value)}
        nested = {key: value for key, value in args.items() if key not in as_typed}
        dots = OmegaConf.from_dotlist([f"{key}={value}" for key, value in as_typed.items()])
        return merge_config(ServeConfig, nested, dots)


def build_app(args: ServeArgs) -> Application:
    """Builds the application.

    Raises:
        InputError: a setting is wrong, or a model is missing.
    """
    return calibrator_app(args.root)


def calibrator_app(config: ServeConfig) -> Application:
    """Builds the application from settings that have been read.

    Raises:
        InputError: a setting is wrong, or a model is missing.
    """
    if not config.voters:
        raise InputError("voters is empty; labels are calibrated by at least one")
    check_roles(None, config.voters, None)
    check_vote(config.vote)
    for name in ("batch_size", "num_threads"):
        if getattr(config, name) < 1:
            raise InputError(f"{name} is {getattr(config, name)}; it is at least 1")
    replicas = config.replicas
    models = model_fingerprints(find_bundle(config.bundle), config.voters, config.experts)
    return Calibrator.options(  # type: ignore[attr-defined]
        autoscaling_config={
            "min_replicas": replicas.min_replicas,
            "max_replicas": replicas.max_replicas,
            "target_ongoing_requests": replicas.target_ongoing_requests,
        },
        max_ongoing_requests=replicas.max_ongoing_requests,
        max_queued_requests=replicas.max_queued_requests,
        backpressure_config={"status_code": 503, "retry_after_s": replicas.retry_after_s},
        ray_actor_options={
            "num_cpus": replicas.num_cpus,
            "num_gpus": replicas.num_gpus,
            "runtime_env": {"env_vars": REPRODUCIBLE},
        },
        graceful_shutdown_timeout_s=config.request_timeout_s,
    ).bind(config, models)


@serve.deployment(
    health_check_period_s=HEALTH_PERIOD_S,
    health_check_timeout_s=HEALTH_TIMEOUT_S,
    max_surge_percent=100,  # a rolling update starts the new replicas before it stops the old ones
)
@serve.ingress()
class Calibrator(GrpcMethods):
    """A replica: it starts when its models are loaded and have judged a face."""

    def __init__(self, config: ServeConfig, models: dict[str, str | None]) -> None:
        self.service = CalibratorService(config, models)
        self.next_probe = 0.0

    def __serve_build_asgi_app__(self) -> FastAPI:
        return rest_app(self.service)

    async def check_health(self) -> None:
        """Raises:
        RuntimeError: the models do not answer, or not as they did at the start.
        """
        if time.monotonic() >= self.next_probe:
            await self.service.check()
            self.next_probe = time.monotonic() + PROBE_PERIOD_S


def _is_typed(key: str, value: Any) -> bool:
    """Whether this came from a command line: `vote.min_confidence=0.5`, `voters=[residual]`."""
    return isinstance(value, str) and ("." in key or value.startswith(("[", "{")))
