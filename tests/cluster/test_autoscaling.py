"""From no worker to some and back, on Ray's autoscaler with its fake provider: real raylets, logical GPUs."""

import json
import subprocess
import sys

import pytest

from synfer_ray.storage.verify import verify
from tests.cluster.ray_cluster import ROOT, autoscaling_cluster
from tests.tiny_bundle import save_tiny_bundle

pytestmark = [pytest.mark.slow, pytest.mark.timeout(420)]

WORKERS = {
    "gpu": {"resources": {"CPU": 1, "GPU": 1}, "min_workers": 0, "max_workers": 2},
    "cpu": {"resources": {"CPU": 2, "voter": 1}, "min_workers": 0, "max_workers": 1},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The finished output, and what was seen of the cluster from the start of the job to its own end."""
    folder = tmp_path_factory.mktemp("autoscaling")
    bundle = save_tiny_bundle(folder / "bundle")
    samples, output = folder / "samples.json", folder / "out"
    with autoscaling_cluster(folder, head={"CPU": 0}, workers=WORKERS, idle_seconds=15) as environment:
        subprocess.run(
            [sys.executable, "-m", "tests.cluster.autoscaled_run", samples, bundle, output],
            cwd=ROOT, env=environment, check=True, timeout=360,
        )  # fmt: skip
    return output, json.loads(samples.read_text())


def test_every_planned_row_is_there(run):
    output, _ = run
    assert verify(str(output)) == []
    totals = json.loads((output / "manifest.json").read_text())["totals"]
    assert totals["rows"] + totals["rejects"] == 64


def test_workers_come_with_the_job_and_go_after_it(run):
    _, samples = run
    assert samples[0]["nodes"] == []
    assert {"cpu", "gpu"} <= {kind for sample in samples for kind in sample["nodes"]}
    assert samples[-1]["nodes"] == []


def test_the_pool_grows_and_shrinks_between_its_bounds(run):
    _, samples = run
    generators = [len(sample["ImageGenerator"]) for sample in samples]
    assert generators[0] == generators[-1] == 0
    first, peak = generators.index(1), generators.index(max(generators))
    assert first < peak and 1 < generators[peak] <= 3
    assert 0 not in generators[first:peak]
    assert any(
        sample["running"] and len(sample["ImageGenerator"]) < generators[peak] for sample in samples[peak:]
    )
    assert max(len(sample["Voter"]) for sample in samples) <= 2


def test_generators_sit_on_gpus_and_voters_on_nodes_without(run):
    _, samples = run
    assert {kind for sample in samples for kind in sample["ImageGenerator"]} - {"gone"} == {"gpu"}
    assert {kind for sample in samples for kind in sample["Voter"]} - {"gone"} == {"cpu"}
