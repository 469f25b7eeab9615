"""Generates with parts of the method switched off and on, and compares the results.

python jobs/study_ablation.py --config configs/ablation.yaml output=ablation evaluate.judge.path=JUDGE.onnx
"""

from synfer_ray.cli import run_job
from synfer_ray.config import StudyConfig
from synfer_ray.study import study

if __name__ == "__main__":
    run_job(StudyConfig, study)
