"""The end of a run: what stands beside the shards, and what the person at the terminal reads."""

from synfer_ray.errors import InputError, RunFailed
from synfer_ray.reporting.card import FILE as CARD
from synfer_ray.reporting.card import write_card
from synfer_ray.reporting.contact_sheet import write_contact_sheet
from synfer_ray.reporting.report import build_report
from synfer_ray.storage.locations import Location, filesystem, join
from synfer_ray.storage.manifest import RunManifest, read_manifest


def finish(output: Location) -> None:
    """Writes manifest, report, contact sheet and card, and prints where to look.

    Raises:
        RunFailed: not one row was accepted.
    """
    report = build_report(output)
    manifest = read_manifest(output)
    rows, rejects = manifest.totals["rows"], manifest.totals["rejects"]
    reasons = ", ".join(f"{reason} {count}" for reason, count in manifest.reject_reasons.items())
    if not rows:
        raise RunFailed(f"all {rejects} rows were rejected: {reasons}; see {report}")
    sheet = write_contact_sheet(output)
    write_card(output)  # last: a folder with its card is finished
    print(
        f"{output}: {rows} images, {rejects} rejected{f' ({reasons})' if reasons else ''}\n"
        f"  look at  {join(output, sheet)}\n"
        f"           {report}\n"
        f'  load     datasets.load_dataset("parquet", data_files="{join(output, "data/*.parquet")}")'
    )
    print_writers("prompts", manifest)


def print_writers(what: str, manifest: RunManifest) -> None:
    """Says who wrote the texts, if a language model was asked: what it did not write is never silent."""
    if manifest.writers:
        print(f"  {what}  {', '.join(f'{count} by {writer}' for writer, count in manifest.writers.items())}")


def finished_manifest(output: Location, plan_fingerprint: str) -> RunManifest | None:
    """Returns the manifest of `output` if all rows of this plan are settled and `finish` came to its end.

    It reads two small files, so that a run with nothing to do says so at once.
    """
    fs, root = filesystem(output)
    if not fs.exists(f"{root}/{CARD}"):
        return None
    try:
        manifest = read_manifest(output)
    except InputError:
        return None
    settled = manifest.totals["rows"] + manifest.totals["rejects"]
    is_whole = settled == manifest.planned_rows and manifest.plan_fingerprint == plan_fingerprint
    return manifest if is_whole else None
