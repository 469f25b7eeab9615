"""Builds FEText, faces with captions and action units, from image folders, Parquet files or WebDataset tars.

    python jobs/build_fetext.py input=FACES output=FETEXT label_column=label landmarker_model=FILE.task

The same command again continues. Without MediaPipe: `au_labeler=none align=false`.
A vision-language model writes the captions with `captioner.kind=transformers captioner.model=FOLDER`.
"""

from synfer_ray.cli import run_job
from synfer_ray.config import FETextConfig
from synfer_ray.fetext import build_fetext

if __name__ == "__main__":
    run_job(FETextConfig, build_fetext)
