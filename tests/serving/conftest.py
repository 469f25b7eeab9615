import socket
from dataclasses import dataclass

import pytest

from synfer_ray.config import LimitsConfig, ReplicasConfig, ServeConfig
from tests.tiny_bundle import save_tiny_bundle


@dataclass(frozen=True)
class Server:
    """A running service: its settings, and its addresses as `host:port`."""

    config: ServeConfig
    http: str
    grpc: str


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory):
    return str(save_tiny_bundle(tmp_path_factory.mktemp("served") / "tiny"))


@pytest.fixture(scope="session")
def serve_config(tiny_bundle):
    return ServeConfig(
        bundle=tiny_bundle,
        batch_size=4,
        port=free_port(),
        grpc_port=free_port(),
        limits=LimitsConfig(max_body_bytes=2 << 20, max_json_bytes=1 << 20, max_pixels=250_000, max_faces=16),
        replicas=ReplicasConfig(num_cpus=0.2),
    )


@pytest.fixture(scope="session")
def service(serve_config):
    """The service in this process, without Ray."""
    from synfer_ray.serving.service import CalibratorService

    service = CalibratorService(serve_config, {"model": "0123"})
    service.quickening.join()
    return service


@pytest.fixture(scope="package")
def server(two_cpus, serve_config):
    """The service as it runs: Ray Serve with its proxies and one replica."""
    from ray import serve

    from synfer_ray.serving.app import calibrator_app
    from synfer_ray.serving.job import APPLICATION, start_serve

    start_serve(serve_config)
    serve.run(calibrator_app(serve_config), name=APPLICATION)
    host = serve_config.host
    yield Server(serve_config, f"{host}:{serve_config.port}", f"{host}:{serve_config.grpc_port}")
    serve.shutdown()
