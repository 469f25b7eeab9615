"""`ray job submit` as the README says it: token on, the working directory uploaded, a real head node."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from tests.cluster.ray_cluster import RAY, ROOT, await_answer, ray_head

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    """The files of a fresh clone."""
    clone = tmp_path_factory.mktemp("clone") / "synfer-ray"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).is_file():
            target = clone / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target)
    return clone


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    with ray_head(tmp_path_factory.mktemp("head"), "--num-cpus=2") as environment:
        await_answer(environment)
        yield environment


def submit(checkout: Path, environment: dict[str, str], *settings: str) -> subprocess.CompletedProcess:
    """Submits the job and follows it to its end; a head that has just started may not take jobs yet."""
    command = ["python", "jobs/generate.py", "--config", "configs/fer64.yaml", *settings]
    address = environment["RAY_API_SERVER_ADDRESS"]
    for _ in range(12):
        submitted = subprocess.run(
            [*RAY, "job", "submit", "--address", address, "--working-dir", ".", "--", *command],
            cwd=checkout,
            env={name: value for name, value in environment.items() if name != "RAY_ADDRESS"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        if "No available agent" not in submitted.stderr + submitted.stdout:
            break
        time.sleep(5)
    return submitted


def test_a_submitted_job_makes_the_dataset_and_finds_nothing_to_do_again(checkout, cluster, tmp_path):
    out = tmp_path / "out"
    settings = (
        f"output={out}", "num_images=14", "seed=1", "batch_size=7", "shard_rows=7",
        "sampling.num_inference_steps=4",
    )  # fmt: skip
    first = submit(checkout, cluster, *settings)
    assert first.returncode == 0, first.stdout + first.stderr
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["totals"]["rows"] + manifest["totals"]["rejects"] == 14
    assert "succeeded" in first.stdout
    assert submit(checkout, cluster, *settings).returncode == 0
    assert json.loads((out / "manifest.json").read_text())["totals"] == manifest["totals"]


def test_a_misspelt_setting_fails_the_job_with_its_message(checkout, cluster, tmp_path):
    wrong = submit(checkout, cluster, f"output={tmp_path / 'out'}", "num_image=14")
    assert wrong.returncode == 1
    assert "did you mean 'num_images'?" in wrong.stdout + wrong.stderr
    assert "exit code 2" in wrong.stdout + wrong.stderr
    assert not (tmp_path / "out").exists()


def test_nobody_submits_without_the_token(checkout, cluster, tmp_path):
    stranger = {name: value for name, value in cluster.items() if not name.startswith("RAY_AUTH")}
    stranger |= {"HOME": str(tmp_path), "RAY_AUTH_MODE": "disabled"}
    refused = submit(checkout, stranger, f"output={tmp_path / 'out'}", "num_images=14")
    assert refused.returncode != 0
    assert "Authentication required" in refused.stdout + refused.stderr
    assert not (tmp_path / "out").exists()


def test_the_token_file_of_the_cluster_is_private(cluster):
    assert os.stat(cluster["RAY_AUTH_TOKEN_PATH"]).st_mode & 0o077 == 0
