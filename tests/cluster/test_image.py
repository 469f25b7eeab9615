"""What goes to a cluster: the image that the Dockerfile describes, and what a submitted job takes along."""

import re
import zipfile
from pathlib import Path

import pytest
import yaml
from ray._private.runtime_env.packaging import _zip_files

from tests.cluster.test_ray_up import load

ROOT = Path(__file__).resolve().parents[2]
LIMIT = 100 * 2**20
"""Of what a job takes along; Ray 2.60 refuses 512 MiB, and older versions refused this."""


@pytest.fixture(scope="module")
def instructions() -> list[tuple[str, str]]:
    """The Dockerfile as pairs (instruction, arguments): comments dropped, continued lines joined."""
    text = (ROOT / "cluster" / "Dockerfile").read_text()
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in joined.splitlines()]


@pytest.fixture(scope="module")
def uploaded(tmp_path_factory) -> zipfile.ZipFile:
    """What `ray job submit --working-dir .` sends."""
    package = tmp_path_factory.mktemp("package") / "package.zip"
    _zip_files(str(ROOT), [], str(package), include_gitignore=True)
    return zipfile.ZipFile(package)


def test_the_base_image_is_pinned_and_the_same_everywhere(instructions):
    arguments = dict(value.split("=", 1) for name, value in instructions if name == "ARG")
    (base,) = [value for name, value in instructions if name == "FROM"]
    assert base == "${RAY_IMAGE}"
    assert re.fullmatch(
        r"rayproject/ray:\d+\.\d+\.\d+-py311-gpu(@sha256:[0-9a-f]{64})?", arguments["RAY_IMAGE"]
    )
    assert {load(cloud)["docker"]["image"] for cloud in ("aws", "gcp")} == {arguments["RAY_IMAGE"]}


def test_nothing_runs_as_root(instructions):
    users = [value for name, value in instructions if name == "USER"]
    assert users and users[-1].isdigit() and int(users[-1]) > 0
    assert not [value for _, value in instructions if "sudo" in value]


def test_every_copied_file_exists_and_reaches_docker(instructions):
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    assert allowed[0] == "*"
    for name, value in instructions:
        if name == "COPY":
            *sources, _ = [part for part in value.split() if not part.startswith("--")]
            for source in sources:
                assert (ROOT / source).exists() and f"!{source}" in allowed


def test_the_image_and_the_runtime_env_install_the_same_libraries(instructions):
    runtime_env = yaml.safe_load((ROOT / "cluster" / "runtime_env.yaml").read_text())
    assert runtime_env["pip"] == "cluster/requirements.txt"
    assert any("-r cluster/requirements.txt" in value for name, value in instructions if name == "RUN")
    (environment,) = [value for name, value in instructions if name == "ENV"]
    for name, value in runtime_env["env_vars"].items():
        assert f"{name}={value}" in environment


def test_ray_reads_the_runtime_env(monkeypatch):
    from ray.runtime_env import RuntimeEnv

    monkeypatch.chdir(ROOT)
    runtime_env = RuntimeEnv(**yaml.safe_load((ROOT / "cluster" / "runtime_env.yaml").read_text()))
    assert "torch==2.13.0" in runtime_env["pip"]["packages"]


def test_the_upload_is_small(uploaded):
    assert sum(file.compress_size for file in uploaded.infolist()) < LIMIT / 2


def test_the_upload_holds_what_a_job_needs_and_nothing_else(uploaded):
    names = {name for name in uploaded.namelist() if not name.endswith("/")}
    needed = {"jobs/generate.py", "configs/fer64.yaml", "synfer_ray/pipeline.py"}
    assert needed | {"synfer_ray/bundles/fer64/model_index.json"} <= names
    roots = {name.split("/")[0] for name in names}
    assert not roots & {".git", ".venv", "tests", "runs", "shared", ".ci", ".ruff_cache", ".hypothesis"}
    assert not [name for name in names if "__pycache__" in name]
