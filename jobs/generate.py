"""Makes a labelled synthetic dataset; the same command again continues.

python jobs/generate.py --config configs/fer64.yaml output=OUT num_images=350 seed=1
"""

from synfer_ray.cli import run_job
from synfer_ray.config import GenerateConfig
from synfer_ray.pipeline import generate

if __name__ == "__main__":
    run_job(GenerateConfig, generate)
