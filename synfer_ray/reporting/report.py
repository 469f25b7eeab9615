"""The report of a dataset: one HTML file, images included, that opens anywhere and needs no JavaScript.

Counts come from the commit records and are exact; pictures and action-unit statistics come from a bounded
look into the shards, so that a million images take as long as a thousand.
"""

import base64
import io
import json
import math
from collections.abc import Sequence
from datetime import timedelta
from itertools import islice
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image

from synfer_ray.reporting.samples import Survey, first_rows, spread, survey
from synfer_ray.reporting.summary import Throughput, label_matrix, throughput
from synfer_ray.storage.locations import Location, filesystem, join, list_files, read_files, write_bytes
from synfer_ray.storage.manifest import write_manifest
from synfer_ray.storage.shards import Commit, read_commits
from synfer_ray.taxonomy.action_units import ACTION_UNITS, FACS_NAMES
from synfer_ray.taxonomy.expressions import EXPRESSIONS

FILE = "report.html"
OVERLAYS = "overlays"
PER_ROW = 7
THUMBNAIL = 192
TREND = (720, 120)
"""Width and height of the throughput curve, in SVG units."""


def build_report(output: Location) -> str:
    """Writes `report.html` from what is committed so far, and brings the manifest up to date.

    Attention overlays are shown if there are any in `overlays/*.png`.

    Returns:
        the location of the report.

    Raises:
        InputError: `output` is not a dataset folder.
    """
    commits = read_commits(output)
    manifest = write_manifest(output, commits)
    look = survey(output, commits, per_expression=PER_ROW, most_changed=2 * PER_ROW)
    matrix = label_matrix(commits)
    pace = throughput(commits)
    environment = Environment(
        loader=PackageLoader("synfer_ray.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["picture"] = picture
    html = environment.get_template("report.html.j2").render(
        manifest=manifest,
        config=json.dumps(manifest.config, indent=2),
        plan=json.dumps(manifest.plan, indent=2),
        expressions=EXPRESSIONS,
        groups=list(look.groups.items()),
        look=look,
        matrix=matrix,
        counts=dict(zip(EXPRESSIONS, matrix.sum(axis=0).tolist())),
        units=_unit_table(look),
        rejected=_rejected(output, commits),
        overlays=_overlays(output),
        pace=pace,
        curve=_curve(pace) if pace else "",
        duration=timedelta(seconds=round(pace.active_seconds)) if pace else None,
        trend=TREND,
    )
    fs, root = filesystem(output)
    write_bytes(fs, f"{root}/{FILE}", html.encode())
    return join(output, FILE)


def picture(content: bytes) -> str:
    """Returns an encoded image as a data URI of at most 192 pixels a side."""
    image = Image.open(io.BytesIO(content)).convert("RGB")
    image.thumbnail((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=85)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _unit_table(look: Survey) -> list[tuple[str, str, list[float]]]:
    """Returns (name, meaning, mean intensity by expression) of the action units that occur."""
    means = look.mean_action_units
    return [
        (name, FACS_NAMES[name], means[:, column].tolist())
        for column, name in enumerate(ACTION_UNITS)
        if np.any(means[:, column] > 0.005)
    ]


def _rejected(output: Location, commits: Sequence[Commit]) -> list[dict[str, Any]]:
    """Returns up to two rows of rejected images, from all over the plan."""
    files = spread([commit.reject_file for commit in commits if commit.reject_file])
    found: list[dict[str, Any]] = []
    for left, file in zip(range(len(files), 0, -1), files):
        share = math.ceil((2 * PER_ROW - len(found)) / left)
        found += islice((row for row in first_rows(output, file) if row["image"]), share)
    return found


def _overlays(output: Location) -> list[tuple[str, bytes]]:
    fs, root = filesystem(output)
    files = [path for path in list_files(fs, f"{root}/{OVERLAYS}") if path.endswith(".png")][: 4 * PER_ROW]
    names = [path.rsplit("/", 1)[-1].removesuffix(".png").replace("_", " ") for path in files]
    return list(zip(names, read_files(fs, files)))


def _curve(pace: Throughput) -> str:
    """Returns the SVG points of rows settled over time, at most 200 of them."""
    width, height = TREND
    seconds, settled = np.array(pace.timeline).T
    places = np.unique(np.linspace(0, len(seconds) - 1, 200).round().astype(int))
    x = seconds[places] / seconds[-1] * width
    y = height - settled[places] / settled[-1] * height
    return " ".join(f"{left:.1f},{top:.1f}" for left, top in zip(x, y))
