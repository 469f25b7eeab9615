"""Makes a small labelled dataset with the embedded model: the whole pipeline in a few minutes.

python jobs/quickstart.py [output=synfer-quickstart]
"""

from synfer_ray.cli import run_job
from synfer_ray.config import QuickstartConfig
from synfer_ray.quickstart import quickstart

if __name__ == "__main__":
    run_job(QuickstartConfig, quickstart)
