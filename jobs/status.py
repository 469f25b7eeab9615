"""Tells from the output folder alone how far a run is: rows, rate, rejects, who drives it.

python jobs/status.py OUT
"""

from synfer_ray.cli import run_job
from synfer_ray.config import OutputConfig
from synfer_ray.reporting.status import show_status

if __name__ == "__main__":
    run_job(OutputConfig, show_status)
