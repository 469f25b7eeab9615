"""A generate job on the cluster at RAY_ADDRESS, and what the cluster did meanwhile: for test_autoscaling.py.

python -m tests.cluster.autoscaled_run SAMPLES.json BUNDLE OUTPUT
"""

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import ray
from ray._private.state import actors

from synfer_ray.config import GenerateConfig, GuidanceConfig, PoolConfig, SamplingConfig
from synfer_ray.pipeline import generate

PATIENCE = 90.0
"""Seconds that idle nodes have to go."""


def sample(running: bool) -> dict[str, Any]:
    """Returns the kinds of the worker nodes, and on which kinds the actors of each stage are."""
    kinds = {node["NodeID"]: kind_of(node["Resources"]) for node in ray.nodes() if node["Alive"]}
    stages: dict[str, list[str]] = {"ImageGenerator": [], "Voter": []}
    for actor in actors().values():
        for stage, places in stages.items():
            if actor["State"] == "ALIVE" and stage in actor["ActorClassName"]:
                places.append(kinds.get(actor["Address"]["NodeID"], "gone"))
    nodes = sorted(kind for kind in kinds.values() if kind != "head")
    return {"nodes": nodes, "running": running, **stages}


def kind_of(resources: dict[str, float]) -> str:
    if resources.get("GPU"):
        return "gpu"
    return "cpu" if "voter" in resources else "head"


def main(samples_file: str, bundle: str, output: str) -> None:
    """Runs the job and waits until the nodes have gone."""
    ray.init(logging_level="ERROR", log_to_driver=False)
    samples = [sample(False)]
    done, over = threading.Event(), threading.Event()

    def watch() -> None:
        while not over.wait(0.3):
            samples.append(sample(not done.is_set()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        generate(
            GenerateConfig(
                output=output,
                bundle=bundle,
                num_images=64,
                batch_size=2,
                shard_rows=2,
                guidance=GuidanceConfig(guide=None),
                sampling=SamplingConfig(num_inference_steps=40),
                generator_pool=PoolConfig(min_actors=1, max_actors=3, num_cpus=0.5, num_gpus=0.5),
                voter_pool=PoolConfig(min_actors=1, max_actors=2, num_cpus=0.5, resources={"voter": 0.1}),
                overlays=0,
            )
        )
        done.set()
        until = time.monotonic() + PATIENCE
        while sample(False)["nodes"] and time.monotonic() < until:
            time.sleep(0.5)
    finally:
        over.set()
        watcher.join()
        samples.append(sample(False))
        Path(samples_file).write_text(json.dumps(samples))


if __name__ == "__main__":
    main(*sys.argv[1:])
