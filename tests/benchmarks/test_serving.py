import io
import json
import math
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from synfer_ray.benchmarks.cost import Cost
from synfer_ray.benchmarks.job import RATIOS
from synfer_ray.benchmarks.load import Outcome
from synfer_ray.benchmarks.serving import Compared, DirectCalls, figures, noise_files
from synfer_ray.config import ServeConfig, ServingBenchmarkConfig
from tests.tiny_bundle import save_tiny_bundle


def test_the_figures_compare_the_loads_with_direct_calls():
    compared = Compared(
        DirectCalls(single=[0.030] * 100, full=[0.05] * 50, full_cpu=2.0),
        alone=Outcome(latencies=[0.040] * 100, seconds=4.0),
        saturated=Outcome([0.1] * 320, seconds=4.0, service_cpu=8.0),
        half=Outcome([0.090] * 100, seconds=2.5),
    )
    overload = Outcome([0.5] * 90 + [3.0] * 30, 30, seconds=2.0)
    config, serve = ServingBenchmarkConfig(deadline=1.0), ServeConfig(batch_size=8, batch_wait_ms=5.0)
    values = figures(config, serve, compared + compared, overload)
    expected = {
        "P7": 3.0,
        "P7 alone": 40 - 30 - 5,
        "P7 half": 90 - 30 - 50 - 5,
        "P7 goodput": 45 / 80,
        "P7 overload": 3000,
    }
    throughput = values.pop("P7 throughput")
    assert throughput == Cost(wall=pytest.approx(80 / 160), cpu=pytest.approx((320 / 8) / (400 / 2)))
    assert values == pytest.approx(expected)
    assert expected.keys() <= RATIOS.keys()


def test_noise_files_differ_and_are_always_the_same():
    files = noise_files(ServeConfig(image_size=32))
    assert len(set(files)) == len(files) and files == noise_files(ServeConfig(image_size=32))
    pixels = [np.asarray(Image.open(io.BytesIO(file))) for file in files]
    assert {image.shape for image in pixels} == {(32, 32, 3)}


@pytest.mark.slow
def test_a_service_is_measured(tmp_path):
    bundle, output = save_tiny_bundle(tmp_path / "tiny"), tmp_path / "out"
    settings = ["serving.seconds=1", "serving.serve.batch_size=2", "serving.serve.replicas.num_cpus=0.5"]
    job = [sys.executable, "jobs/benchmark.py", "parts=[serving]", f"bundle={bundle}", f"output={output}"]
    subprocess.run([*job, "repetitions=2", *settings], check=True, timeout=280)
    ratios = json.loads((output / "benchmark.json").read_text())["ratios"]
    assert list(ratios) == [name for name in RATIOS if name.startswith("P7")]
    for name, ratio in ratios.items():
        assert len(ratio["repetitions"]) == (1 if name in ("P7 start", "P7 memory") else 2)
        assert math.isfinite(ratio["value"])
    assert ratios["P7 start"]["value"] > 0 and ratios["P7 memory"]["value"] > 50
    assert 0 < ratios["P7 throughput"]["value"] < 2
