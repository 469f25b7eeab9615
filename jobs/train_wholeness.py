"""Trains what tells a bundle's whole faces from broken ones, and what viewers read in them, on rated samples.

python jobs/train_wholeness.py --config configs/train_fer64.yaml input=FETEXT bundle=BUNDLE \
    'rated=[RATED]' ratings=RATINGS.csv
"""

from functools import partial

from synfer_ray.cli import run_job
from synfer_ray.config import TrainingConfig
from synfer_ray.training.bundle import train_part

if __name__ == "__main__":
    run_job(TrainingConfig, partial(train_part, name="wholeness"))
