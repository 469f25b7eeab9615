"""The application as Ray Serve and KubeRay are told of it, without starting either."""

import copy
from pathlib import Path

import pytest
import yaml
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary as build
from ray.serve.schema import ServeDeploySchema

from synfer_ray.config import ServeConfig
from synfer_ray.errors import InputError
from synfer_ray.serving.app import ServeArgs, build_app, calibrator_app
from synfer_ray.serving.oip.grpc import add_inference_service
from synfer_ray.serving.proxy import proxy_environment
from synfer_ray.settings import load_config

ROOT = Path(__file__).resolve().parents[2]
SERVE_YAML = ROOT / "configs" / "serve" / "calibrator.yaml"
KUBERAY_YAML = ROOT / "cluster" / "kuberay" / "rayservice.yaml"


@pytest.fixture(scope="module")
def document():
    return yaml.safe_load(SERVE_YAML.read_text())


def test_ray_serve_takes_the_file_and_the_application_its_args(document):
    config = ServeDeploySchema.model_validate(document)
    (application,) = config.applications
    assert application.import_path == "synfer_ray.serving.app:build_app"
    args = ServeArgs.model_validate(application.args).root
    assert args == ServeConfig()  # the file says what the defaults are
    assert config.http_options.host == args.host and config.grpc_options.port == args.grpc_port
    (override,) = application.deployments
    app = build(build_app, application.args)
    assert override.name == app._bound_deployment.name
    assert config.grpc_options.grpc_servicer_functions == [
        f"{add_inference_service.__module__}:{add_inference_service.__name__}"
    ]


def test_kuberay_gets_the_same_but_for_who_may_ask(document):
    service = yaml.safe_load(KUBERAY_YAML.read_text())
    expected = copy.deepcopy(document)
    expected["http_options"]["host"] = "0.0.0.0"
    expected["applications"][0]["args"] |= {"host": "0.0.0.0", "token_env": "SYNFER_TOKEN"}
    assert yaml.safe_load(service["spec"]["serveConfigV2"]) == expected
    (worker,) = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
    (container,) = worker["template"]["spec"]["containers"]
    variables = {variable["name"]: variable for variable in container["env"]}
    assert "valueFrom" in variables["SYNFER_TOKEN"]
    for name, value in proxy_environment(ServeConfig().limits).items():
        assert variables[name]["value"] == value
    assert {port["containerPort"] for port in container["ports"]} == {8000, 9000}


def test_args_of_the_command_line_are_read_like_settings():
    args = {"bundle": "fer64", "batch_size": "4", "vote.min_confidence": "0.5", "voters": "[residual]"}
    overrides = [f"{key}={value}" for key, value in args.items()]
    assert ServeArgs.model_validate(args).root == load_config(ServeConfig, overrides=overrides)
    nested = {"vote": {"min_confidence": 0.5}, "voters": ["residual"], "batch_size": 4}
    assert ServeArgs.model_validate(nested).root == ServeArgs.model_validate(args).root


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"bundel": "fer64"}, "did you mean 'bundle'"),
        ({"batch_size": "many"}, "many"),
        ({"limits": {"max_face": 3}}, "max_faces"),
    ],
)
def test_wrong_args_are_refused_by_name(args, message):
    with pytest.raises(ValueError, match=message):
        build(build_app, args)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"voters": []}, "voters is empty"),
        ({"voters": ["residual", "residual"]}, "already"),
        ({"voters": ["nobody"]}, "'nobody'"),
        ({"bundle": "nowhere"}, "'nowhere'"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_settings_that_cannot_be_served_are_refused_before_anything_starts(tiny_bundle, changes, message):
    with pytest.raises(InputError, match=message):
        calibrator_app(ServeConfig(**{"bundle": tiny_bundle} | changes))
