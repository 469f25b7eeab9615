"""What serving adds to its models (P7): latency, throughput and goodput against direct calls; start, memory.

Both sides judge the same image files with the same settings, one file a request. Another process makes the
direct calls and puts the load on the service, in turns.
"""

import io
import os
import socket
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from multiprocessing import get_context
from operator import add
from typing import TYPE_CHECKING, Any

import numpy as np
import psutil
from PIL import Image

from synfer_ray.benchmarks.cost import Cost, Summed
from synfer_ray.benchmarks.load import Load, Outcome, put_load
from synfer_ray.benchmarks.memory import private_mib
from synfer_ray.config import ServeConfig, ServingBenchmarkConfig
from synfer_ray.errors import RunFailed

if TYPE_CHECKING:
    from synfer_ray.serving.ensemble import Ensemble

ensemble: "Ensemble"
"""The models of a process that makes direct calls."""
FILES = 16
HEADERS = {"Content-Type": "image/png"}
QUICKENED_SECONDS = 30.0
"""After that an idle replica has recorded its voters."""
SLICES = 5
"""So often do direct calls and loads take turns in a repetition: a machine's pace changes by the minute."""


@dataclass(frozen=True)
class DirectCalls(Summed):
    """The models without a service: seconds of each call with one face, and of each with a full batch.

    `full_cpu` are the CPU seconds of all calls with a full batch.
    """

    single: list[float]
    full: list[float]
    full_cpu: float


@dataclass(frozen=True)
class Compared(Summed):
    """Direct calls, and the loads that took turns with them: a lone caller, saturation, half of that rate."""

    direct: DirectCalls
    alone: Outcome
    saturated: Outcome
    half: Outcome


def measure_serving(config: ServingBenchmarkConfig, bundle: str, repetitions: int) -> dict[str, list[Any]]:
    """Returns the figures of P7, one a repetition; start-up and memory are measured once.

    Raises:
        RunFailed: a request failed, or the same file was answered in two ways.
    """
    serve = replace(config.serve, bundle=bundle, port=free_port(), grpc_port=0)
    files = noise_files(serve)
    turns = []
    with (
        running_service(serve, files[0]) as (url, start_seconds),
        get_context("spawn").Pool(1, load_models, (serve,)) as apart,
    ):

        def load(seconds: float, **wanted: Any) -> Outcome:
            before = cpu_seconds()
            outcome: Outcome = apart.apply(put_load, (Load(url, files, HEADERS, seconds, **wanted),))
            outcome.service_cpu = cpu_seconds() - before
            if outcome.failed or outcome.changed:
                wrong = f"{outcome.failed} requests failed, {outcome.changed} answers changed"
                raise RunFailed(f"{wanted}: {wrong}")
            return outcome

        def compare(seconds: float) -> Compared:
            direct = apart.apply(direct_calls, (serve, files, seconds))
            alone, saturated = load(seconds, callers=1), load(seconds, callers=2 * serve.batch_size)
            return Compared(direct, alone, saturated, load(seconds, rate=saturated.rate / 2))

        time.sleep(QUICKENED_SECONDS)
        for _ in range(repetitions):
            compared = reduce(add, (compare(config.seconds / SLICES) for _ in range(SLICES)))
            overload = load(config.seconds, rate=compared.saturated.rate * 2)
            turns.append(figures(config, serve, compared, overload))
        memory = [private_mib(process) for process in serve_processes("ServeReplica")]
    measured = {name: [turn[name] for turn in turns] for name in turns[0]}
    return measured | {"P7 start": [start_seconds], "P7 memory": memory}


def figures(
    config: ServingBenchmarkConfig, serve: ServeConfig, compared: Compared, overload: Outcome
) -> dict[str, float | Cost]:
    """Returns one value for each figure; times in milliseconds.

    Throughput comes in CPU time too, where the service counts with its proxy. A face waits for its batch at
    most `batch_wait_ms` if the device is idle, and one full batch if it is busy.
    """
    direct, saturated, half = compared.direct, compared.saturated, compared.half
    call, batch = float(np.percentile(direct.single, 99)), statistics.median(direct.full)
    faces = len(direct.full) * serve.batch_size
    throughput = Cost(
        wall=saturated.rate * sum(direct.full) / faces,
        cpu=len(saturated.latencies) / saturated.service_cpu * direct.full_cpu / faces,
    )
    in_time = sum(seconds <= config.deadline for seconds in overload.latencies) / overload.seconds
    return {
        "P7": half.p99() / call,
        "P7 alone": 1000 * (compared.alone.p99() - call) - serve.batch_wait_ms,
        "P7 half": 1000 * (half.p99() - call - batch) - serve.batch_wait_ms,
        "P7 throughput": throughput,
        "P7 goodput": in_time / saturated.rate,
        "P7 overload": 1000 * overload.p99(),
    }


def load_models(config: ServeConfig) -> None:
    """Loads the models into this process, for its `direct_calls`."""
    global ensemble
    from synfer_ray.serving.proxy import REPRODUCIBLE

    os.environ.update(REPRODUCIBLE)  # as in the replica
    from synfer_ray.serving.ensemble import Ensemble

    ensemble = Ensemble(config)  # has judged a full batch
    ensemble.quicken()


def direct_calls(config: ServeConfig, files: Sequence[bytes], seconds: float) -> DirectCalls:
    """Calls the models of this process, from the image file to the verdict."""
    from synfer_ray.serving.faces import face_of_file

    def judge(number: int, count: int) -> float:
        started = time.perf_counter()
        batch = [files[(number + place) % len(files)] for place in range(count)]
        ensemble(
            [face_of_file(file, "", "", ensemble.image_size, config.limits.max_pixels) for file in batch]
        )
        return time.perf_counter() - started

    def judge_for_a_while(count: int) -> list[float]:
        end = time.perf_counter() + seconds
        taken: list[float] = []
        while not taken or time.perf_counter() < end:
            taken.append(judge(len(taken), count))
        return taken

    single, started = judge_for_a_while(1), time.process_time()
    full = judge_for_a_while(config.batch_size)
    return DirectCalls(single, full, time.process_time() - started)


@contextmanager
def running_service(config: ServeConfig, file: bytes) -> Iterator[tuple[str, float]]:
    """Starts the service; yields its address and the seconds from there to its first answer."""
    from synfer_ray.runtime import ray_session
    from synfer_ray.serving.app import calibrator_app
    from synfer_ray.serving.job import APPLICATION, start_serve
    from synfer_ray.serving.proxy import proxy_environment

    os.environ.update(proxy_environment(config.limits))
    url = f"http://{config.host}:{config.port}/v1/calibrate"
    with ray_session():
        from ray import serve

        start_serve(config)
        try:
            started = time.perf_counter()
            serve.run(calibrator_app(config), name=APPLICATION)
            put_load(Load(url, [file], HEADERS, seconds=0.001))
            yield url, time.perf_counter() - started
        finally:
            serve.shutdown()


def cpu_seconds() -> float:
    """Returns what the replica and the proxy have used of the CPU so far."""
    times = [process.cpu_times() for process in serve_processes("ServeReplica", "ProxyActor")]
    return sum(used.user + used.system for used in times)


def serve_processes(*kinds: str) -> list[psutil.Process]:
    """Returns the processes of these actors of Ray Serve, of those that this one started."""
    children = psutil.Process().children(recursive=True)
    names = tuple(f"ray::{kind}" for kind in kinds)
    return [process for process in children if command_line(process).startswith(names)]


def command_line(process: psutil.Process) -> str:
    """Returns how a process was called; nothing of one that has ended."""
    try:
        return "".join(process.cmdline())
    except psutil.Error:
        return ""


def noise_files(config: ServeConfig) -> list[bytes]:
    """Returns different PNG files of the size the models see, or of 64 pixels."""
    side = config.image_size or 64
    files = []
    for pixels in np.random.default_rng(0).integers(0, 256, (FILES, side, side, 3), dtype=np.uint8):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "PNG")
        files.append(buffer.getvalue())
    return files


def free_port() -> int:
    """Returns a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
