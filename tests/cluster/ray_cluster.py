"""Ray clusters of their own for tests: `ray start --head` in a process group, with a token, on free ports.

`ray stop` and Ray's own test clusters end every Ray of the machine, also the one of other tests: these end
what they started.
"""

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[2]
RAY = [sys.executable, "-m", "ray.scripts.scripts"]
COMMANDS = [
    "initialization_commands",
    *(f"{node}setup_commands" for node in ("", "head_", "worker_")),
    *(f"{node}start_ray_commands" for node in ("head_", "worker_")),
]
HEAD_ID = "fffffffffffffffffffffffffffffffffffffffffffffffffff00000"
"""The name that Ray's fake node provider gives to the head."""


@contextmanager
def ray_head(folder: Path, *arguments: str, port: int = 0, **environment: str) -> Iterator[dict[str, str]]:
    """Starts a head node and yields the environment of a process that may use it.

    In it are RAY_ADDRESS (of the cluster), RAY_API_SERVER_ADDRESS (of the dashboard) and the token's file.
    """
    token = folder / "auth_token"
    token.touch(mode=0o600)
    token.write_text(secrets.token_hex(32))
    dashboard, agent, client, gcs = free_ports(4)
    gcs = port or gcs
    access = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_ADDRESS": f"127.0.0.1:{gcs}",
        "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    started = subprocess.Popen(
        [
            *RAY, "start", "--head", "--block", f"--port={gcs}", "--node-ip-address=127.0.0.1",
            "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}", "--disable-usage-stats",
            f"--ray-client-server-port={client}",
            f"--dashboard-agent-listen-port={agent}", *arguments,
        ],
        env=inherited | access | environment | {"RAY_ADDRESS": ""},
        stdout=(folder / "head.log").open("w"),
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )  # fmt: skip
    try:
        yield inherited | access
    finally:
        end(started)


@contextmanager
def autoscaling_cluster(
    folder: Path, head: Mapping[str, float], workers: Mapping[str, Any], idle_seconds: float
) -> Iterator[dict[str, str]]:
    """Starts a head with Ray's autoscaler and its fake provider, whose nodes are processes of this machine.

    Args:
        head: resources of the head.
        workers: name -> {resources, min_workers, max_workers}.
        idle_seconds: after which a node goes.
    """
    (port,) = free_ports(1)
    config = {
        "cluster_name": "test",
        "max_workers": sum(kind["max_workers"] for kind in workers.values()),
        "upscaling_speed": 100.0,
        "idle_timeout_minutes": idle_seconds / 60,
        "provider": {
            "type": "external",  # as type "fake_multinode" it asks for a file that Ray's wheels do not have
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "gcs_address": f"127.0.0.1:{port}",
            "head_node_id": HEAD_ID,
            "launch_multiple": True,
        },
        "available_node_types": {
            "ray.head.default": {"resources": dict(head), "node_config": {}, "max_workers": 0},
            **{name: {"node_config": {}, **kind} for name, kind in workers.items()},
        },
        "head_node_type": "ray.head.default",
        "auth": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        **{name: [] for name in COMMANDS},
    }
    path = folder / "autoscaling.json"
    path.write_text(json.dumps(config))
    with ray_head(
        folder,
        f"--num-cpus={head['CPU']}",
        f"--autoscaling-config={path}",
        port=port,
        RAY_FAKE_CLUSTER="1",
        AUTOSCALER_UPDATE_INTERVAL_S="1",
        RAY_enable_autoscaler_v2="1",
        RAY_CLOUD_INSTANCE_ID=HEAD_ID,
        RAY_OVERRIDE_NODE_ID_FOR_TESTING=HEAD_ID,
        RAY_NODE_TYPE_NAME="ray.head.default",
    ) as environment:
        yield environment


def await_answer(environment: Mapping[str, str], seconds: float = 60) -> None:
    """Waits until the cluster's dashboard accepts connections."""
    host, port = environment["RAY_API_SERVER_ADDRESS"].removeprefix("http://").split(":")
    until = time.monotonic() + seconds
    while True:
        with socket.socket() as probe:
            if probe.connect_ex((host, int(port))) == 0:
                return
        if time.monotonic() > until:
            raise TimeoutError(f"no answer at {host}:{port} for {seconds} seconds")
        time.sleep(0.2)


def free_ports(count: int) -> list[int]:
    """Returns ports that nobody listens on."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def end(started: subprocess.Popen) -> None:
    """Ends a process and all that came from it."""
    family = [psutil.Process(started.pid), *psutil.Process(started.pid).children(recursive=True)]
    started.send_signal(signal.SIGTERM)
    psutil.wait_procs(family[:1], timeout=15)
    for process in family:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue
    started.wait()
