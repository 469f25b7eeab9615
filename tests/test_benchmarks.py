import json
import math
import subprocess
import sys
import time
from xml.etree import ElementTree

import pytest

from synfer_ray.benchmarks.cost import Cost, CpuMeter, interleave, measure, median
from synfer_ray.benchmarks.job import RATIOS, Definition, benchmark
from synfer_ray.config import BenchmarkConfig, ScaleConfig
from synfer_ray.errors import InputError
from synfer_ray.storage.verify import verify
from tests.tiny_bundle import save_tiny_bundle


@pytest.mark.slow
def test_the_job_measures_its_parts(tmp_path, capsys):
    bundle = save_tiny_bundle(tmp_path / "bundle")
    benchmark(
        BenchmarkConfig(
            output=str(tmp_path / "out"),
            bundle=str(bundle),
            repetitions=1,
            batch_size=2,
            num_inference_steps=4,
            shard_batches=1,
            shards=2,
        )
    )
    result = json.loads((tmp_path / "out" / "benchmark.json").read_text())
    assert set(result["ratios"]) == {"P1", "P1 serial", "P2", "P3", "P5", "P10", "P11"}
    for ratio in result["ratios"].values():
        (only,) = ratio["repetitions"]
        assert only == {"wall": ratio["value"], "cpu": ratio["cpu"]}
        assert math.isfinite(ratio["value"]) and ratio["value"] > 0
    assert result["ratios"]["P5"]["value"] > 1  # with FERAnno and without, of the same turn
    assert result["machine"]["cores"] >= 1 and result["machine"]["torch"]
    assert result["config"]["num_inference_steps"] == 4

    table = (tmp_path / "out" / "benchmark.md").read_text()
    assert table in capsys.readouterr().out
    rows = [line for line in table.splitlines() if line.startswith("| P")]
    assert [row.split("|")[1].strip() for row in rows] == [
        name for name in RATIOS if name in result["ratios"]
    ]
    assert ">= 0.95" in rows[0]


def tiny(tmp_path, **settings) -> BenchmarkConfig:
    """Settings of the shortest jobs, on a tiny bundle."""
    bundle = save_tiny_bundle(tmp_path / "bundle")
    small = dict(
        repetitions=1, batch_size=2, num_inference_steps=2, shard_batches=1, shards=3, growth_shards=4
    )
    return BenchmarkConfig(output=str(tmp_path / "out"), bundle=str(bundle), **small | settings)


@pytest.mark.slow
def test_parts_that_run_whole_jobs(tmp_path, two_cpus):
    small = {"overlap_rows": 20, "writer_rows": 20, "writer_image_size": 32}
    benchmark(tiny(tmp_path, parts=["overlap", "writer", "resume", "scaling"], **small))
    ratios = json.loads((tmp_path / "out" / "benchmark.json").read_text())["ratios"]
    assert list(ratios) == ["P4", "P4 serial", "P6", "P8", "scaling"]
    assert all(ratio["value"] > 0 for ratio in ratios.values())
    assert ratios["P4 serial"]["value"] > 1.5  # the generator waits as long as the voters take
    assert ratios["P6"]["value"] < 2 and ratios["scaling"]["cpu"] is None


@pytest.mark.slow
def test_parts_that_start_rays_of_their_own(tmp_path):
    scale = ScaleConfig(num_images=200, shard_rows=10, image_size=16, seconds_per_image=0.001, actors=2)
    benchmark(tiny(tmp_path, parts=["memory", "scale"], growth_shards=2, scale=scale))
    ratios = json.loads((tmp_path / "out" / "benchmark.json").read_text())["ratios"]
    assert list(ratios) == ["P9 driver", "P9 actors", "scale rate", "scale driver"]
    assert 0.5 < ratios["P9 driver"]["value"] < 2
    result = json.loads((tmp_path / "out" / "scale.json").read_text())
    assert [run["rows"] for run in result["runs"].values()] == [100, 100]
    assert result["metadata_seconds"]["nothing_to_do"] < 5
    assert verify(str(tmp_path / "out" / "dataset")) == []
    ElementTree.fromstring((tmp_path / "out" / "scale.svg").read_text())


def test_an_unknown_part_is_refused(tmp_path):
    with pytest.raises(InputError, match="did you mean 'writer'"):
        benchmark(BenchmarkConfig(output=str(tmp_path), parts=["write"]))


@pytest.mark.parametrize("wrong", [{"shards": 1}, {"repetitions": 0}])
def test_too_little_work_is_refused(wrong, tmp_path):
    with pytest.raises(InputError, match=f"{next(iter(wrong))}={next(iter(wrong.values()))}"):
        benchmark(BenchmarkConfig(output=str(tmp_path), **wrong))


def test_works_take_turns_and_the_first_turn_does_not_count():
    calls = []
    works = {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}
    assert len(interleave(works, repetitions=2)) == 2
    assert calls == ["a", "b"] * 3


def test_sleep_costs_time_but_no_cpu():
    cost = measure(lambda: time.sleep(0.2))
    assert cost.wall >= 0.2 > cost.cpu


def test_costs_add_up_and_divide_by_kind():
    assert (Cost(1, 2) + Cost(3, 4)) * 2 / Cost(4, 3) == Cost(2, 4)
    assert Cost(3, 4) - Cost(1, 2) == Cost(2, 2)
    assert median([Cost(1, 9), Cost(5, 1), Cost(2, 3)]) == Cost(2, 3)


def test_the_cpu_of_processes_that_end_is_counted():
    burn = "import time\nend = time.process_time() + 0.6\nwhile time.process_time() < end: pass"
    with CpuMeter(interval=0.05) as meter:
        start = time.time()
        subprocess.run([sys.executable, "-c", burn], check=True)
        end = time.time()
    assert 0.4 < meter.cost(start, end).cpu < 2.0
    assert meter.cost(start, end).wall == end - start


def test_a_target_is_kept_or_missed():
    assert Definition("speed", at_least=0.95).met(0.96) and not Definition("speed", at_least=0.95).met(0.94)
    assert Definition("cost", at_most=1.08).met(1.08) and not Definition("cost", at_most=1.08).met(1.09)
    assert Definition("anything").met(7) and Definition("anything").target == ""
