"""Makes the damaged, missing and doubled rows of a dataset again, with its recorded settings.

python jobs/repair.py OUT
"""

from synfer_ray.cli import run_job
from synfer_ray.config import OutputConfig
from synfer_ray.repair import repair

if __name__ == "__main__":
    run_job(OutputConfig, repair)
