"""Measures the engine against a plain loop, and its parts against each other.

python jobs/benchmark.py output=benchmark bundle=fer64
"""

from synfer_ray.benchmarks.job import benchmark
from synfer_ray.cli import run_job
from synfer_ray.config import BenchmarkConfig

if __name__ == "__main__":
    run_job(BenchmarkConfig, benchmark)
