"""Every query of the dashboard asks for a metric that exists: ours as the code names it, or one of Ray's."""

import json
import re
from pathlib import Path

import pytest
import ray.dashboard.modules.metrics.dashboards.default_dashboard_panels as rays_panels
from ray.util.metrics import Metric

from synfer_ray.metrics import RunMetrics

ROOT = Path(__file__).resolve().parents[2]
DASHBOARD = json.loads((ROOT / "cluster" / "grafana" / "synfer-ray.json").read_text())
PREFIX, SUFFIX = "ray_", r"_(total|bucket|sum|count)$"


def queries() -> list[str]:
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    variables = [
        variable["query"]["query"]
        for variable in DASHBOARD["templating"]["list"]
        if variable["type"] == "query"
    ]
    return panels + variables


def asked_for() -> set[str]:
    return {name for query in queries() for name in re.findall(r"\bray_\w+", query)}


def own_metrics() -> dict[str, set[str]]:
    """The metrics of a run, each with its tags."""
    metrics = [value for value in vars(RunMetrics("test")).values() if isinstance(value, Metric)]
    return {metric.info["name"]: set(metric.info["tag_keys"]) for metric in metrics}


def test_every_metric_exists():
    rays = Path(rays_panels.__file__).read_text()
    ours = own_metrics()
    for name in asked_for():
        if name.startswith(f"{PREFIX}synfer_"):
            exported = name.removeprefix(PREFIX)
            assert exported in ours or re.sub(SUFFIX, "", exported) in ours, name
        else:
            assert re.search(rf"\b{name}\b", rays), name


def test_every_metric_is_shown():
    shown = {re.sub(SUFFIX, "", name.removeprefix(PREFIX)) for name in asked_for()}
    assert {re.sub(SUFFIX, "", name) for name in own_metrics()} <= shown


@pytest.mark.parametrize("query", queries())
def test_a_query_groups_by_tags_that_its_metrics_have(query):
    tags = {re.sub(SUFFIX, "", name): tags for name, tags in own_metrics().items()}
    for name in re.findall(r"\bray_(synfer_\w+)", query):
        for group in re.findall(r"\bby \(([^)]*)\)", query):
            assert set(group.split(", ")) - {"le"} <= tags[re.sub(SUFFIX, "", name)]


@pytest.mark.parametrize("query", queries())
def test_brackets_are_balanced(query):
    for opening, closing in ("()", "[]", "{}"):
        assert query.count(opening) == query.count(closing)


def test_panels_do_not_overlap():
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24 and not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
