"""The Kubernetes manifests, as KubeRay's own schemas see them."""

import json
import lzma
import re
from pathlib import Path

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement

from synfer_ray.config import GenerateConfig
from synfer_ray.settings import load_config

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = sorted((ROOT / "cluster" / "kuberay").glob("*.yaml"))
SCHEMAS = json.loads(lzma.decompress(Path(__file__).with_name("kuberay-1.7.0-schemas.json.xz").read_bytes()))
"""Version v1 of the CRDs of KubeRay 1.7.0 (Apache-2.0, ray-project/kuberay), without the descriptions."""


def load(manifest: Path) -> dict:
    (document,) = yaml.safe_load_all(manifest.read_text())
    return document


def cluster_of(document: dict) -> dict:
    spec = document["spec"]
    return spec.get("rayClusterSpec") or spec.get("rayClusterConfig") or spec


@pytest.fixture(params=MANIFESTS, ids=lambda path: path.stem)
def document(request) -> dict:
    return load(request.param)


def test_there_is_a_job_and_a_cluster():
    assert {load(path)["kind"] for path in MANIFESTS} >= {"RayJob", "RayCluster"}


def test_kuberay_accepts_it(document):
    jsonschema.validate(document, strict(SCHEMAS[document["kind"]]))


def test_a_misspelt_field_is_found(document):
    cluster_of(document)["workerGroupSpecs"][0]["maxReplica"] = 3
    with pytest.raises(jsonschema.ValidationError, match="maxReplica"):
        jsonschema.validate(document, strict(SCHEMAS[document["kind"]]))


def test_pods_have_limits_and_belong_to_a_plain_user_behind_a_token(document):
    cluster = cluster_of(document)
    assert cluster["authOptions"]["mode"] == "token"
    assert cluster["headGroupSpec"]["serviceType"] == "ClusterIP"
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] > 0
        assert all(container["resources"].keys() == {"requests", "limits"} for container in pod["containers"])


def test_workers_come_and_go_on_spot_nodes(document):
    cluster = cluster_of(document)
    if document["kind"] == "RayService" or not cluster.get("enableInTreeAutoscaling"):
        pytest.skip("a service, which stays, or a cluster of one size")
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert "nodeSelector" not in cluster["headGroupSpec"]["template"]["spec"]  # the head is never pre-empted
    for group in cluster["workerGroupSpecs"]:
        assert group["minReplicas"] == 0 < group["maxReplicas"]
        assert any("spot" in key for key in group["template"]["spec"]["nodeSelector"])
    gpus = [
        "nvidia.com/gpu" in group["template"]["spec"]["containers"][0]["resources"]["limits"]
        for group in cluster["workerGroupSpecs"]
    ]
    assert sorted(gpus) == [False, True]


def test_the_job_is_one_of_ours_with_settings_that_exist():
    entrypoint = load(ROOT / "cluster" / "kuberay" / "rayjob-generate.yaml")["spec"]["entrypoint"]
    python, job, flag, config, *settings = entrypoint.split()
    in_image = "/home/ray/synfer-ray/"  # where cluster/Dockerfile puts them
    assert (python, flag) == ("python", "--config")
    assert (ROOT / job.removeprefix(in_image)).is_file()
    loaded = load_config(GenerateConfig, str(ROOT / config.removeprefix(in_image)), settings)
    assert loaded.num_images == 1_000_000 and loaded.shard_rows % loaded.batch_size == 0
    assert loaded.generator_pool.max_actors and loaded.voter_pool.max_actors


def test_ray_is_the_version_that_we_require(document):
    pinned = (ROOT / "cluster" / "requirements.txt").read_text()
    (ray,) = [Requirement(line) for line in pinned.splitlines() if re.match(r"ray\b", line)]
    assert ray.specifier.contains(cluster_of(document)["rayVersion"])


def strict(schema: dict) -> dict:
    """The schema as the API server reads it with `--validate=strict`: what it does not name is an error."""
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        properties = {name: strict(child) for name, child in schema["properties"].items()}
        if "apiVersion" in properties:
            properties.setdefault("metadata", {"type": "object"})
        return {**schema, "properties": properties, "additionalProperties": False}
    if "items" in schema:
        return {**schema, "items": strict(schema["items"])}
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["integer", "string"]}
    return schema
