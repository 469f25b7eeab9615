"""The end of a run: what stands beside the shards, and what the person at the terminal reads."""

from synfer_ray.errors import InputError
from synfer_ray.reporting.card import FILE as CARD
from synfer_ray.reporting.card import write_card
from synfer_ray.reporting.contact_sheet import write_contact_sheet
from synfer_ray.reporting.report import build_report
from synfer_ray.storage.locations import Location, filesystem, join
from synfer_ray.storage.manifest import read_manifest


def finish(output: Location) -> None:
    """Writes manifest, report, contact sheet and card, and prints where to look.

    Raises:
        RuntimeError: not one row was accepted.
    """
    report = build_report(output)
    manifest = read_manifest(output)
    rows, rejects = manifest.totals["rows"], manifest.totals["rejects"]
    reasons = ", ".join(f"{reason} {count}" for reason, count in manifest.reject_reasons.items())
    if not rows:
        raise RuntimeError(f"all {rejects} rows were rejected: {reasons}; see {report}")
    sheet = write_contact_sheet(output)
    write_card(output)  # last: a folder with its card is finished
    print(
        f"{output}: {rows} images, {rejects} rejected{f' ({reasons})' if reasons else ''}\n"
        f"  look at  {join(output, sheet)}\n"
        f"           {report}\n"
        f'  load     datasets.load_dataset("parquet", data_files="{join(output, "data/*.parquet")}")'
    )


def is_finished(output: Location) -> bool:
    """Whether every planned row is settled and `finish` came to its end."""
    fs, root = filesystem(output)
    if not fs.exists(f"{root}/{CARD}"):
        return False
    try:
        manifest = read_manifest(output)
    except InputError:
        return False
    return manifest.totals["rows"] + manifest.totals["rejects"] == manifest.planned_rows
