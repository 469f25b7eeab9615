import io
import re
import time
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
from PIL import Image

from synfer_ray.benchmarks.memory import MemoryMeter
from synfer_ray.benchmarks.scale import thin
from synfer_ray.benchmarks.scale_plot import plot_scale
from synfer_ray.benchmarks.stand_in import noise_picture, stand_in
from synfer_ray.config import GenerateConfig
from synfer_ray.plan import Plan
from synfer_ray.stages.calibrator import Calibrator
from synfer_ray.stages.planner import Planner
from synfer_ray.storage.bundle import FERANNO

CONFIG = GenerateConfig(output="memory://scale", voters=[FERANNO])


def planned(rows: int) -> pa.Table:
    plan = Plan(CONFIG, {"model": "m", "adapter": "a"})
    return Planner(plan)(pa.table({"index": list(range(rows))}))


def test_the_stand_in_takes_its_time_and_fills_in_what_a_generator_does():
    started = time.monotonic()
    table = stand_in(seconds_per_image=0.02, image_size=24)(CONFIG)(planned(10))
    assert time.monotonic() - started >= 0.2
    settled = Calibrator(CONFIG.voters, CONFIG.vote)(table).to_pylist()
    assert all(row["label"] == row["assigned_label"] for row in settled)
    assert Image.open(io.BytesIO(settled[0]["image"]["bytes"])).size == (24, 24)


def test_pictures_of_noise_differ_and_stay_the_same():
    assert noise_picture(1, 64) == noise_picture(1, 64) != noise_picture(2, 64)
    assert 4_000 < len(noise_picture(1, 64)) < 8_000  # a face of fer64 has 6 KB


def test_memory_that_is_taken_is_seen():
    with MemoryMeter(interval=0.02) as meter:
        before = meter.peak("driver")
        taken = np.ones(64 * 2**20, np.uint8)
        time.sleep(0.1)
    assert 55 < meter.peak("driver") - before < 80
    assert len(meter.moments) == len(meter.samples["driver"]) and taken.size


def test_a_series_is_thinned_to_its_ends():
    assert thin(range(1001))[0] == 0 and thin(range(1001))[-1] == 1000
    assert len(thin(range(1001))) == 200 and thin([3.0]) == [3.0]


def test_the_plot_stays_inside_its_frame():
    run = {
        "rows": 500,
        "commit_seconds": [1.0, 2.0, 5.0],
        "memory_seconds": [0.0, 9.0],
        "memory_mib": {"driver": [10.0, 30.0], "gcs_server": [5.0, 5.0]},
    }
    svg = ElementTree.fromstring(plot_scale({"runs": {"first half": run, "second half": run}}))
    width, height = map(float, svg.attrib["viewBox"].split()[2:])
    lines = [element.attrib["points"] for element in svg.iter() if element.tag.endswith("polyline")]
    assert len(lines) == 6
    for x, y in re.findall(r"([\d.]+),([\d.]+)", " ".join(lines)):
        assert 0 <= float(x) <= width and 0 <= float(y) <= height
