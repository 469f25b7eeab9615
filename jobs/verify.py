"""Checks every byte of a dataset against its commits; exit code 1 if it is not whole.

python jobs/verify.py OUT
"""

from synfer_ray.cli import run_job
from synfer_ray.config import OutputConfig
from synfer_ray.repair import check

if __name__ == "__main__":
    run_job(OutputConfig, check)
