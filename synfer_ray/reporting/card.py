"""The dataset card: README.md with the metadata that the Hugging Face Hub and `load_dataset` read."""

import json
from typing import Any

import pyarrow.parquet as pq
from jinja2 import Environment, PackageLoader, StrictUndefined

from synfer_ray.reporting.summary import label_matrix
from synfer_ray.storage.locations import Location, filesystem, write_bytes
from synfer_ray.storage.manifest import RunManifest, read_manifest
from synfer_ray.storage.shards import Commit, read_commits
from synfer_ray.taxonomy.action_units import ACTION_UNITS
from synfer_ray.taxonomy.expressions import EXPRESSIONS

FILE = "README.md"
SIZES = (
    (10**3, "n<1K"),
    (10**4, "1K<n<10K"),
    (10**5, "10K<n<100K"),
    (10**6, "100K<n<1M"),
    (10**7, "1M<n<10M"),
    (10**8, "10M<n<100M"),
)


def write_card(output: Location, name: str = "Facial expressions", license: str = "other") -> str:
    """Writes the card of a dataset whose manifest is written; returns the name of the file.

    Args:
        output: the dataset folder or URI.
        name: the title of the card.
        license: an identifier of the Hugging Face Hub (`cc-by-4.0`, `other`).

    Raises:
        InputError: there is no manifest.
    """
    manifest, commits = read_manifest(output), read_commits(output)
    card = dataset_card(manifest, commits, _columns(output, manifest), name, license)
    fs, root = filesystem(output)
    write_bytes(fs, f"{root}/{FILE}", card.encode())
    return FILE


def dataset_card(
    manifest: RunManifest, commits: list[Commit], columns: dict[str, str], name: str, license: str
) -> str:
    """Returns the text of the card; a dataset with an `assigned_label` column is described as generated."""
    matrix = label_matrix(commits)
    environment = Environment(
        loader=PackageLoader("synfer_ray.reporting"), undefined=StrictUndefined, keep_trailing_newline=True
    )
    return environment.get_template("card.md.j2").render(
        name=name,
        license=license,
        size_category=size_category(manifest.totals["rows"]),
        generated="assigned_label" in columns,
        rows=manifest.totals["rows"],
        rejects=manifest.totals["rejects"],
        planned=manifest.planned_rows,
        counts=dict(zip(EXPRESSIONS, matrix.sum(axis=0).tolist())),
        changed=int(matrix.sum() - matrix.trace()),
        reasons=manifest.reject_reasons,
        columns=columns,
        expressions=EXPRESSIONS,
        action_units=ACTION_UNITS,
        fingerprint=manifest.plan_fingerprint,
        versions=manifest.versions,
    )


def size_category(rows: int) -> str:
    """Returns the Hub's name for a dataset of this many rows."""
    return next((name for limit, name in SIZES if rows < limit), "n>100M")


def _columns(output: Location, manifest: RunManifest) -> dict[str, str]:
    if not manifest.shards:
        return {}
    fs, root = filesystem(output)
    with fs.open(f"{root}/{manifest.shards[0].file}", "rb") as stream:
        schema = pq.read_schema(stream)
    features = json.loads(schema.metadata[b"huggingface"])["info"]["features"]
    return {name: _type(feature) for name, feature in features.items()}


def _type(feature: dict[str, Any]) -> str:
    """Returns `Image`, `ClassLabel`, `string` or `List(float32)`."""
    inner = f"({_type(feature['feature'])})" if "feature" in feature else ""
    return feature.get("dtype", feature["_type"]) + inner
