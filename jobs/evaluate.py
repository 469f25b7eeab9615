"""Judges a generated dataset by a classifier and a face landmarker that had no part in making it.

    python jobs/evaluate.py input=OUT judge.path=judge.onnx judge.grey=true judge.output=probabilities \
        landmarker_model=face_landmarker.task
"""

from synfer_ray.cli import run_job
from synfer_ray.config import EvaluateConfig
from synfer_ray.evaluate import evaluate

if __name__ == "__main__":
    run_job(EvaluateConfig, evaluate)
