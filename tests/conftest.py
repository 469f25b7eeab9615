import logging
import os
from pathlib import Path

import pytest

from synfer_ray.serving.proxy import REPRODUCIBLE

os.environ.update(REPRODUCIBLE)  # before torch is loaded: models here answer to the bit as those of a replica

SHARED = Path(os.environ.get("SYNFER_SHARED", Path(__file__).resolve().parents[2] / "shared"))


@pytest.fixture(scope="session")
def fer2013() -> Path:
    """The folder of FER2013 Parquet files, which the project does not ship."""
    return _optional(SHARED / "data" / "fer2013")


@pytest.fixture(scope="session")
def third_party_models() -> Path:
    """The folder of third-party ONNX and MediaPipe models, which the project does not ship."""
    return _optional(SHARED / "models")


@pytest.fixture(scope="session")
def two_cpus():
    """A local Ray with two CPUs, as on the smallest machine that a job is meant for."""
    import ray

    from synfer_ray.config import LimitsConfig
    from synfer_ray.serving.proxy import proxy_environment

    os.environ.update(proxy_environment(LimitsConfig()))  # read by Ray's processes when they start
    ray.init(
        address="local",  # not one that happens to run on this machine
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    yield
    ray.shutdown()


def _optional(folder: Path) -> Path:
    if not folder.is_dir():
        pytest.skip(f"needs {folder} (set SYNFER_SHARED to the folder that holds data/ and models/)")
    return folder
