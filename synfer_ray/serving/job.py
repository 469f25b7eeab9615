"""`synfer serve`: the calibrator on this machine, or on the cluster at RAY_ADDRESS, until Ctrl-C."""

import logging
import os
import signal
import threading
from collections.abc import Sequence
from typing import Any

from synfer_ray.config import ServeConfig
from synfer_ray.runtime import ray_session
from synfer_ray.serving.access import Access
from synfer_ray.serving.proxy import proxy_environment

APPLICATION = "calibrator"
SERVICER = "synfer_ray.serving.oip.grpc:add_inference_service"


def serve_calibrator(config: ServeConfig) -> None:
    """Starts the service, says where it is, and stops it when interrupted; what is under way is answered.

    Raises:
        InputError: a setting is wrong, or a model is missing.
    """
    from synfer_ray.serving.app import calibrator_app

    Access(config.token_env, config.host)  # an unset token is told here, not by replicas
    app = calibrator_app(config)
    os.environ.update(proxy_environment(config.limits))
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    with ray_session():
        import ray
        from ray import serve

        start_serve(config)
        serve.run(app, name=APPLICATION, route_prefix="/")
        print(where(config, [node["MetricsExportPort"] for node in ray.nodes()]), flush=True)
        try:
            _wait_for_a_signal()
        finally:
            print("stopping", flush=True)
            serve.delete(APPLICATION)  # waits for what is under way, which shutdown() would not
            serve.shutdown()


def start_serve(config: ServeConfig) -> None:
    """Starts Ray Serve's HTTP and gRPC proxies with the addresses and time limit of the settings."""
    from ray import serve

    grpc_options: dict[str, Any] | None = None
    if config.grpc_port:
        grpc_options = {
            "port": config.grpc_port,
            "grpc_servicer_functions": [SERVICER],
            "request_timeout_s": config.request_timeout_s,
            "enable_reflection": False,
        }
    http_options = {
        "host": config.host,
        "port": config.port,
        "request_timeout_s": config.request_timeout_s,
    }
    serve.start(http_options=http_options, grpc_options=grpc_options)


def where(config: ServeConfig, metrics_ports: Sequence[int] = ()) -> str:
    """Returns where to look, for people; every node has a port for its metrics."""
    url = f"http://{config.host}:{config.port}"
    lines = [
        f"page        {url}/",
        f"REST        {url}/v2/models/calibrator    documented at {url}/docs",
    ]
    if config.grpc_port:
        lines.append(f"gRPC        {config.host}:{config.grpc_port}")
    lines += [f"Prometheus  port {port}, /metrics" for port in metrics_ports]
    return "\n".join([*lines, "Ctrl-C stops it"])


def _wait_for_a_signal() -> None:
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    stop.wait()
