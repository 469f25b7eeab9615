import json
import math
import subprocess
import sys
import time

import pytest

from synfer_ray.benchmarks.cost import Cost, CpuMeter, interleave, measure, median
from synfer_ray.benchmarks.job import RATIOS, Definition, benchmark
from synfer_ray.config import BenchmarkConfig
from synfer_ray.errors import InputError
from tests.tiny_bundle import save_tiny_bundle


def test_the_job_measures_every_ratio(tmp_path, capsys):
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
    assert set(result["ratios"]) == set(RATIOS)
    for ratio in result["ratios"].values():
        (only,) = ratio["repetitions"]
        assert only == {"wall": ratio["wall"], "cpu": ratio["cpu"]}
        assert math.isfinite(ratio["wall"]) and ratio["wall"] > 0
    assert result["ratios"]["P5"]["wall"] > 1  # with FERAnno and without, of the same turn
    assert result["machine"]["cores"] >= 1 and result["machine"]["torch"]
    assert result["config"]["num_inference_steps"] == 4

    table = (tmp_path / "out" / "benchmark.md").read_text()
    assert table in capsys.readouterr().out
    rows = [line for line in table.splitlines() if line.startswith("| P")]
    assert [row.split("|")[1].strip() for row in rows] == list(RATIOS)
    assert ">= 0.95" in rows[0]


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
