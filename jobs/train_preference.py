"""Teaches a bundle's U-Net which of its own draws are better; the same command again continues.

python jobs/train_preference.py --config configs/train_fer64.yaml input=FETEXT bundle=BUNDLE
"""

from functools import partial

from synfer_ray.cli import run_job
from synfer_ray.config import TrainingConfig
from synfer_ray.training.bundle import train_part

if __name__ == "__main__":
    run_job(TrainingConfig, partial(train_part, name="preference"))
