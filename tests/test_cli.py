import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass

import pytest

from synfer_ray.cli import JOBS, main, run_job
from synfer_ray.config import CalibrateConfig, OutputConfig
from synfer_ray.errors import PARTIAL, InputError, RunFailed


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


def test_help_documents_the_exit_codes(capsys):
    main(["--help"])
    shown = capsys.readouterr().out
    for code in ("0 done", "1 failed", "2 bad input", "3 done with fewer", "130 interrupted"):
        assert code in shown


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (InputError("odd"), 2, "odd"),
        (RunFailed("broken"), 1, "broken"),
        (RunFailed("few", PARTIAL), 3, "few"),
        (PermissionError("Access Denied"), 1, "PermissionError: Access Denied (output=s3://bucket/out)"),
        (KeyboardInterrupt(), 130, "the same command continues"),
    ],
)
def test_what_ends_a_job_is_told_in_one_line_and_by_the_exit_code(error, code, message, capsys):
    def fail(config):
        raise error

    assert exit_code(lambda: run_job(OutputConfig, fail, ["s3://bucket/out"])) == code
    shown = capsys.readouterr().err
    assert message in shown and len(shown.splitlines()) == 1


def test_sigterm_stops_a_job_like_an_interrupt():
    def wait(config):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(10)

    assert exit_code(lambda: run_job(Settings, wait, [])) == 130


def test_settings_reach_the_job_from_file_and_command_line(tmp_path):
    (tmp_path / "x.yaml").write_text("num_images: 5\n")
    seen = []
    run_job(Settings, seen.append, ["--config", str(tmp_path / "x.yaml")])
    run_job(Settings, seen.append, ["--config", str(tmp_path / "x.yaml"), "num_images=7"])
    assert [settings.num_images for settings in seen] == [5, 7]


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_server_is_an_option_too(place):
    seen = []
    arguments = ["input=faces", "output=out"]
    arguments[place:place] = ["--server", "http://127.0.0.1:8000"]
    run_job(CalibrateConfig, seen.append, arguments)
    assert (seen[0].input, seen[0].output, seen[0].server) == ("faces", "out", "http://127.0.0.1:8000")


def test_job_help_shows_settings_with_defaults(capsys):
    assert exit_code(lambda: run_job(Settings, print, ["--help"])) == 0
    assert "num_images: 3" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["generat"], "did you mean 'generate'"),
        (["generate", "output=x", "num_image=3"], "did you mean 'num_images'"),
        (["generate", "output=x", "expressions=happy"], "expressions is a list: 'expressions=[...]'"),
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
