import subprocess
import sys
from dataclasses import dataclass

import pytest

from synfer_ray.cli import JOBS, main, run_job
from synfer_ray.errors import InputError


@dataclass
class Settings:
    """Settings of a test job."""

    num_images: int = 3


def exit_code(call) -> int:
    with pytest.raises(SystemExit) as stopped:
        call()
    return stopped.value.code


def test_help_lists_every_job_and_imports_nothing_heavy():
    code = (
        "import sys; from synfer_ray.cli import main; main(['--help']);"
        "assert not {'ray', 'torch', 'diffusers', 'transformers'} & set(sys.modules)"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    for name, job in JOBS.items():
        assert any(line.split()[:1] == [name] and job.summary in line for line in shown.splitlines())


def test_settings_reach_the_job_from_file_and_command_line(tmp_path):
    (tmp_path / "x.yaml").write_text("num_images: 5\n")
    seen = []
    run_job(Settings, seen.append, ["--config", str(tmp_path / "x.yaml")])
    run_job(Settings, seen.append, ["--config", str(tmp_path / "x.yaml"), "num_images=7"])
    assert [settings.num_images for settings in seen] == [5, 7]


def test_job_help_shows_settings_with_defaults(capsys):
    assert exit_code(lambda: run_job(Settings, print, ["--help"])) == 0
    assert "num_images: 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generat"], "did you mean 'generate'"),
        (["generate", "output=x", "num_image=3"], "did you mean 'num_images'"),
        (["generate", "output=x", "num_images=many"], "many"),
        (["generate", "num_images=3"], "output"),
        (["generate", "output=x", "bundle=nowhere"], "'nowhere'"),
        (["generate", "output=x", "--config", "missing.yaml"], "missing.yaml"),
    ],
)
def test_bad_input_exits_with_2_and_one_line(arguments, message, capsys):
    assert exit_code(lambda: main(arguments)) == 2
    shown = capsys.readouterr().err
    assert message in shown and "Traceback" not in shown and len(shown.splitlines()) == 1


def test_input_error_of_a_job_exits_with_2_and_other_errors_pass():
    def refuse(settings):
        raise InputError(f"{settings.num_images} is odd")

    def crash(settings):
        raise RuntimeError("broken")

    assert exit_code(lambda: run_job(Settings, refuse, [])) == 2
    with pytest.raises(RuntimeError, match="broken"):
        run_job(Settings, crash, [])
