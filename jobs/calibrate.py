"""Checks and corrects the labels of an existing set of faces; the same command again continues.

python jobs/calibrate.py --config configs/calibrate.yaml input=FACES.parquet output=OUT
"""

from synfer_ray.calibrate import calibrate
from synfer_ray.cli import run_job
from synfer_ray.config import CalibrateConfig

if __name__ == "__main__":
    run_job(CalibrateConfig, calibrate)
