"""The Kubernetes manifests: against the part of KubeRay's schema that they use, and against whole CRDs."""

import re
from pathlib import Path

import jsonschema
import pytest
import yaml
from packaging.requirements import Requirement

from synfer_ray.config import GenerateConfig
from synfer_ray.settings import load_config
from tests.conftest import SHARED

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = sorted((ROOT / "cluster" / "kuberay").glob("*.yaml"))
QUANTITY = {"type": "string", "pattern": r"^[0-9.]+(m|[KMGT]i?)?$"}
TEXT, COUNT, FLAG = {"type": "string"}, {"type": "integer", "minimum": 0}, {"type": "boolean"}


def fields(required: str = "", **properties: dict) -> dict:
    """An object that has no other fields than these."""
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


def mapping(values: dict) -> dict:
    return {"type": "object", "additionalProperties": values}


def listing(items: dict) -> dict:
    return {"type": "array", "items": items, "minItems": 1}


RESOURCES = fields("requests limits", requests=mapping(QUANTITY), limits=mapping(QUANTITY))
PROBE = fields(
    exec=fields("command", command=listing(TEXT)),
    httpGet=fields("port", path=TEXT, port={"type": ["integer", "string"]}),
    initialDelaySeconds=COUNT,
    periodSeconds=COUNT,
    timeoutSeconds=COUNT,
    failureThreshold=COUNT,
)
CONTAINER = fields(
    "name image resources",
    name=TEXT,
    image=TEXT,
    imagePullPolicy={"enum": ["Always", "IfNotPresent", "Never"]},
    resources=RESOURCES,
    env=listing(fields("name", name=TEXT, value=TEXT, valueFrom={"type": "object"})),
    ports=listing(fields("containerPort", containerPort=COUNT, name=TEXT, protocol=TEXT)),
    securityContext={"type": "object"},
    volumeMounts=listing(fields("name mountPath", name=TEXT, mountPath=TEXT, readOnly=FLAG)),
    livenessProbe=PROBE,
    readinessProbe=PROBE,
)
POD = fields(
    "spec",
    metadata=fields(labels=mapping(TEXT), annotations=mapping(TEXT)),
    spec=fields(
        "containers securityContext",
        containers=listing(CONTAINER),
        serviceAccountName=TEXT,
        securityContext=fields(
            "runAsNonRoot runAsUser",
            runAsNonRoot={"const": True},
            runAsUser={"type": "integer", "minimum": 1},
            fsGroup=COUNT,
            seccompProfile={"type": "object"},
        ),
        nodeSelector=mapping(TEXT),
        tolerations=listing(
            fields(
                key=TEXT,
                operator={"enum": ["Exists", "Equal"]},
                value=TEXT,
                effect={"enum": ["NoSchedule", "PreferNoSchedule", "NoExecute"]},
            )
        ),
        terminationGracePeriodSeconds=COUNT,
        volumes=listing({"type": "object"}),
    ),
)
CLUSTER = fields(
    "rayVersion headGroupSpec workerGroupSpecs authOptions",
    rayVersion=TEXT,
    authOptions=fields("mode", mode={"const": "token"}, secretName=TEXT),
    enableInTreeAutoscaling=FLAG,
    autoscalerOptions=fields(
        version={"enum": ["v1", "v2"]},
        upscalingMode={"enum": ["Default", "Aggressive", "Conservative"]},
        idleTimeoutSeconds=COUNT,
        resources=RESOURCES,
    ),
    headGroupSpec=fields(
        "rayStartParams template",
        serviceType={"enum": ["ClusterIP"]},
        rayStartParams=mapping(TEXT),
        template=POD,
    ),
    workerGroupSpecs=listing(
        fields(
            "groupName minReplicas maxReplicas rayStartParams template",
            groupName=TEXT,
            replicas=COUNT,
            minReplicas=COUNT,
            maxReplicas=COUNT,
            idleTimeoutSeconds=COUNT,
            rayStartParams=mapping(TEXT),
            template=POD,
        )
    ),
)
SPECS = {
    "RayCluster": CLUSTER,
    "RayJob": fields(
        "entrypoint rayClusterSpec",
        entrypoint=TEXT,
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "SidecarMode", "InteractiveMode"]},
        backoffLimit=COUNT,
        activeDeadlineSeconds=COUNT,
        shutdownAfterJobFinishes=FLAG,
        ttlSecondsAfterFinished=COUNT,
        runtimeEnvYAML=TEXT,
        rayClusterSpec=CLUSTER,
    ),
    "RayService": fields(
        "serveConfigV2 rayClusterConfig",
        serveConfigV2=TEXT,
        rayClusterConfig=CLUSTER,
        serviceUnhealthySecondThreshold=COUNT,
        deploymentUnhealthySecondThreshold=COUNT,
        rayClusterDeletionDelaySeconds=COUNT,
        excludeHeadPodFromServeSvc=FLAG,
        upgradeStrategy={"type": "object"},
    ),
}


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


def test_a_manifest_has_known_fields_of_the_right_types_alone(document):
    schema = fields(
        "apiVersion kind metadata spec",
        apiVersion={"const": "ray.io/v1"},
        kind={"enum": list(SPECS)},
        metadata=fields("name", name=TEXT, namespace=TEXT, labels=mapping(TEXT), annotations=mapping(TEXT)),
        spec=SPECS[document["kind"]],
    )
    jsonschema.validate(document, schema)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_a_misspelt_field_is_found(path):
    document = load(path)
    cluster_of(document)["workerGroupSpecs"][0]["maxReplica"] = 3
    with pytest.raises(jsonschema.ValidationError, match="maxReplica"):
        jsonschema.validate(document["spec"], SPECS[document["kind"]])


def test_the_whole_crd_accepts_it(document):
    """KubeRay's CRDs are not ours to ship: `helm pull kuberay/kuberay-operator` has them under `crds/`."""
    kind = document["kind"].lower()
    path = SHARED / "kuberay" / f"ray.io_{kind}s.yaml"
    if not path.is_file():
        pytest.skip(f"needs {path}, from KubeRay's Helm chart")
    versions = {version["name"]: version for version in yaml.safe_load(path.read_text())["spec"]["versions"]}
    schema = versions["v1"]["schema"]["openAPIV3Schema"]
    jsonschema.validate(document, strict(schema))


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
