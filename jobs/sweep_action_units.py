"""Draws faces that differ in one action unit alone, from weak to strong.

python jobs/sweep_action_units.py output=sweep.png generate.bundle=fer64
"""

from synfer_ray.cli import run_job
from synfer_ray.config import SweepConfig
from synfer_ray.sweep import sweep

if __name__ == "__main__":
    run_job(SweepConfig, sweep)
