import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = sorted((ROOT / "synfer_ray").rglob("*.py"))
JOBS = sorted((ROOT / "jobs").glob("*.py"))


WRONG = {
    "taxonomy/expressions.py": "from synfer_ray.storage import shards",
    "diffusion/noise.py": "from synfer_ray.calibration import vote",
    "faces/images.py": "def lazy():\n    import ray",
    "prompts/lint.py": "import torch",
    "extra_room.py": "",
}
"""Lines that break the rule of dependence."""


def lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs import-linter on the package that lies in `folder`."""
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def test_arrows_only_point_down():
    found = lint_imports(ROOT)
    assert found.returncode == 0, found.stdout


def test_wrong_arrows_are_found(tmp_path):
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    for file in PACKAGE:
        copy = tmp_path / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(file.read_text())
    for module, line in WRONG.items():
        with (tmp_path / "synfer_ray" / module).open("a") as file:
            file.write(f"\n{line}\n")
    found = lint_imports(tmp_path)
    assert found.returncode == 1
    for wrong in (
        "synfer_ray.taxonomy is not allowed to import synfer_ray.storage",
        "synfer_ray.diffusion is not allowed to import synfer_ray.calibration",
        "synfer_ray.faces is not allowed to import ray",
        "synfer_ray.prompts is not allowed to import torch",
        "extra_room",
    ):
        assert wrong in found.stdout


@pytest.mark.parametrize("job", JOBS, ids=lambda path: path.name)
def test_a_job_is_short_and_shows_its_command(job):
    text = job.read_text()
    assert len(text.splitlines()) <= 60
    assert f"python jobs/{job.name}" in text.split('"""')[1]


def test_every_module_fits_in_the_head():
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in PACKAGE}
    assert {name: count for name, count in lines.items() if count > 350} == {}
