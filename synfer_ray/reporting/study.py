"""An ablation as a table, and as one picture: the same planned faces, made by each variant."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from synfer_ray.reporting.contact_sheet import Tile, contact_sheet
from synfer_ray.reporting.samples import first_rows
from synfer_ray.storage.locations import Location
from synfer_ray.storage.shards import read_commits
from synfer_ray.taxonomy.expressions import EXPRESSIONS

COLUMNS = {
    "FER accuracy": "fer_accuracy",
    "after calibration": "fer_accuracy_calibrated",
    "AU macro F1": "au_macro_f1",
    "faces found": "faces_found",
    "Fréchet": "frechet_distance",
    "diversity": "diversity",
    "nearest real image": "nearest_correlation",
    "images/s": "images_per_second",
}


def markdown(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """A row a variant; below, the same figures of real images and of the autoencoder's reconstructions."""
    columns = {column: key for column, key in COLUMNS.items() if any(key in row for row in figures.values())}
    lines = [f"| variant | {' | '.join(columns)} |", "|---" * (1 + len(columns)) + "|"]
    lines += [_line(name, [row.get(key) for key in columns.values()]) for name, row in figures.items()]
    some = next(iter(figures.values()))
    for name, ending in {"*real faces*": "_real", "*reconstructed faces*": "_reconstructed"}.items():
        known = [some.get(key + ending) for key in columns.values()]
        if any(value is not None for value in known):
            lines.append(_line(name, known))
    return "\n".join(lines) + "\n"


def comparison_sheet(datasets: Mapping[str, Location]) -> bytes:
    """A PNG with a row a variant and a column an expression; each column shares its plan row and noise."""
    rows = {name: _first_of_each(dataset) for name, dataset in datasets.items()}
    shared = set.intersection(*(set(samples) for samples in rows.values()))
    columns = [expression for expression in EXPRESSIONS if expression in shared]
    tiles = {name: [Tile(samples[e], (e,)) for e in columns] for name, samples in rows.items()}
    buffer = io.BytesIO()
    contact_sheet(tiles).save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _first_of_each(dataset: Location) -> dict[str, Image.Image]:
    found: dict[str, Image.Image] = {}
    for commit in read_commits(dataset):
        for row in first_rows(dataset, commit.data_file) if commit.data_file else ():
            name = EXPRESSIONS[row["assigned_label"]]
            if name not in found:
                found[name] = Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB")
        if len(found) == len(EXPRESSIONS):
            break
    return found


def _line(name: str, values: Sequence[float | None]) -> str:
    cells = ("" if value is None else f"{value:.3f}" for value in values)
    return f"| {name} | {' | '.join(cells)} |"
