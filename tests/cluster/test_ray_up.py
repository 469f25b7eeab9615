"""`ray up` files, checked as the command checks them before it asks a cloud for anything."""

import re
from pathlib import Path

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parents[2]
CLOUDS = ("aws", "gcp")


def load(cloud: str) -> dict:
    return yaml.safe_load((ROOT / "cluster" / f"{cloud}.yaml").read_text())


@pytest.fixture(params=CLOUDS)
def config(request) -> dict:
    return prepare_config(load(request.param))


def test_ray_accepts_it(config):
    validate_config(config)


@pytest.mark.parametrize("cloud", CLOUDS)
def test_ray_would_refuse_a_misspelt_key(cloud):
    config = load(cloud) | {"idle_timeout_minute": 5}
    with pytest.raises(jsonschema.ValidationError, match="idle_timeout_minute"):
        validate_config(prepare_config(config))


def test_the_head_stays_and_workers_start_at_none(config):
    head = config["head_node_type"]
    assert config["available_node_types"][head]["resources"] == {"CPU": 0}
    assert any("--num-cpus=0" in command for command in config["head_start_ray_commands"])
    assert config["idle_timeout_minutes"] <= 10
    for name, node_type in config["available_node_types"].items():
        is_spot = "spot" in str(node_type["node_config"]).lower()
        assert is_spot == (name != head)
        assert node_type["min_workers"] == 0
        assert (node_type["max_workers"] > 0) == (name != head)
    assert (
        sum(kind["max_workers"] for kind in config["available_node_types"].values()) <= config["max_workers"]
    )


def test_there_are_nodes_with_and_without_a_gpu(config):
    workers = [
        kind for name, kind in config["available_node_types"].items() if name != config["head_node_type"]
    ]
    assert sorted(kind["resources"].get("GPU", 0) for kind in workers) == [0, 1]
    assert all(kind["resources"]["CPU"] >= 4 for kind in workers)


def test_nobody_gets_in_without_the_token(config):
    assert "--env RAY_AUTH_MODE=token" in config["docker"]["run_options"]
    assert config["file_mounts"]["/home/ray/.ray/auth_token"] == "~/.ray/auth_token"
    assert "chmod 600 /home/ray/.ray/auth_token" in config["setup_commands"]
    (start,) = [command for command in config["head_start_ray_commands"] if "ray start" in command]
    assert "--dashboard-host=127.0.0.1" in start and "--autoscaling-config" in start


def test_the_image_has_the_ray_that_we_require(config):
    version = re.search(r":(\d+\.\d+\.\d+)-py311", config["docker"]["image"])
    assert version and pinned()["ray"].specifier.contains(version[1])


def test_what_is_pinned_is_what_the_package_needs():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = [Requirement(line) for line in project["dependencies"]]
    pins = pinned()
    for requirement in wanted:
        pin = pins[requirement.name]
        (exact,) = [clause.version for clause in pin.specifier if clause.operator == "=="]
        assert requirement.specifier.contains(exact), f"{requirement} does not allow {exact}"
        assert requirement.extras <= pin.extras


def pinned() -> dict[str, Requirement]:
    lines = (ROOT / "cluster" / "requirements.txt").read_text().splitlines()
    requirements = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {requirement.name: requirement for requirement in requirements}
