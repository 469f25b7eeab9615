"""Trains every part of a bundle from a FEText folder, in order; the same command again continues.

python jobs/train_bundle.py --config configs/train_fer64.yaml input=FETEXT bundle=BUNDLE
"""

from synfer_ray.cli import run_job
from synfer_ray.config import TrainingConfig
from synfer_ray.training.bundle import train_bundle

if __name__ == "__main__":
    run_job(TrainingConfig, train_bundle)
