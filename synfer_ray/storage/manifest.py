"""What a dataset is made from, and what it holds: `run.json` names the plan, `manifest.json` the shards."""

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from importlib import metadata
from typing import Any

from synfer_ray.errors import InputError
from synfer_ray.storage.fingerprint import canonical_json, fingerprint
from synfer_ray.storage.locations import Location, filesystem, write_bytes
from synfer_ray.storage.shards import Commit, any_commit, label_counts, read_commits

RUN, MANIFEST, LEASE = "run.json", "manifest.json", "lease.json"
SHAPING = ("shard_rows",)
"""Settings that no row depends on, but the files do: two drivers with one value write the same files."""
PACKAGES = ("synfer-ray", "torch", "diffusers", "transformers", "ray", "pyarrow", "numpy", "pillow")


@dataclass(frozen=True)
class Shard:
    """A data file of the dataset."""

    file: str
    rows: int
    sha256: str


@dataclass(frozen=True)
class RunManifest:
    """The table of contents of a dataset folder."""

    plan_fingerprint: str
    plan: dict[str, Any]
    """Everything that decides the rows: settings and model fingerprints."""
    config: dict[str, Any]
    """The resolved configuration, with what does not decide the rows (pool sizes, batch sizes)."""
    versions: dict[str, str]
    planned_rows: int | None
    shards: list[Shard]
    reject_reasons: dict[str, int]
    totals: dict[str, int]
    """rows, rejects and bytes."""
    labels: dict[str, int] = field(default_factory=dict)
    """Rows by calibrated expression."""
    writers: dict[str, int] = field(default_factory=dict)
    """Rows by who wrote their prompt or caption, if a language model was asked."""


def claim_output(
    output: Location,
    fingerprint_inputs: Mapping[str, Any],
    *,
    config: Mapping[str, Any] | None = None,
    planned_rows: int | None = None,
    job: str = "generate",
) -> str:
    """Makes `output` the folder of this plan, or checks that it already is; returns the plan's fingerprint.

    As long as nothing is committed the plan may change.

    Args:
        output: the dataset folder or URI; made if missing.
        fingerprint_inputs: the plan: all settings and model fingerprints that decide the rows. Only these,
            and the `SHAPING` settings, are compared.
        config: the resolved configuration, recorded for the reader and for `synfer repair`.
        planned_rows: how many rows the plan has, recorded for the totals.
        job: the job that the configuration belongs to.

    Raises:
        InputError: the folder belongs to another plan (naming each changed key with both values), or holds
            files but no plan.
    """
    check_vacant(output)
    check_plan(output, fingerprint_inputs, config or {})
    plan = json.loads(canonical_json(fingerprint_inputs))
    run = {
        "plan_fingerprint": fingerprint(plan),
        "plan": plan,
        "config": dict(config or {}),
        "versions": _versions(),
        "planned_rows": planned_rows,
        "job": job,
    }
    fs, root = filesystem(output)
    write_bytes(fs, f"{root}/{RUN}", _pretty(run))
    return fingerprint(plan)


def check_plan(output: Location, plan: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Checks that what is committed in `output`, if anything is, belongs to this plan.

    Raises:
        InputError: it does not, naming each changed key with both values.
    """
    fs, root = filesystem(output)
    if not fs.exists(f"{root}/{RUN}") or not any_commit(output):
        return
    recorded = read_run(output)
    before = _decided(recorded["plan"], recorded["config"])
    after = _decided(json.loads(canonical_json(plan)), config)
    if changes := _changes(before, after):
        raise InputError(
            f"{output} was made by another plan: {'; '.join(changes)}. "
            "Choose another output, or restore these settings to continue"
        )


def check_vacant(output: Location) -> None:
    """Checks that `output` is a dataset folder, or empty, or not there.

    Raises:
        InputError: it holds the files of somebody else.
    """
    fs, root = filesystem(output)
    if fs.exists(f"{root}/{RUN}") or not fs.exists(root):
        return
    if strangers := _visible_names(output):
        raise InputError(
            f"{output} is not empty and holds no {RUN}: found {', '.join(strangers[:3])}. "
            "Choose an empty or new output"
        )


def write_manifest(output: Location, commits: list[Commit] | None = None) -> RunManifest:
    """Sums up the commits (read again if not given) into `manifest.json`.

    Raises:
        InputError: `output` is not a dataset folder.
    """
    run = read_run(output)
    commits = read_commits(output) if commits is None else commits
    reasons, writers = Counter[str](), Counter[str]()
    for commit in commits:
        reasons.update(commit.reasons)
        writers.update(commit.writers)
    manifest = RunManifest(
        **{key: run[key] for key in ("plan_fingerprint", "plan", "config", "versions", "planned_rows")},
        shards=[
            Shard(name, commit.rows, str(commit.files[name]["sha256"]))
            for commit in commits
            if (name := commit.data_file)
        ],
        reject_reasons=dict(reasons.most_common()),
        totals={
            "rows": sum(commit.rows for commit in commits),
            "rejects": sum(commit.rejects for commit in commits),
            "bytes": sum(int(file["bytes"]) for commit in commits for file in commit.files.values()),
        },
        labels=label_counts(commits),
        writers=dict(writers.most_common()),
    )
    fs, root = filesystem(output)
    write_bytes(fs, f"{root}/{MANIFEST}", _pretty(asdict(manifest)))
    return manifest


def read_manifest(output: Location) -> RunManifest:
    """Returns the manifest last written.

    Raises:
        InputError: there is none, or it is damaged.
    """
    text = _read_json(output, MANIFEST)
    return RunManifest(**text | {"shards": [Shard(**shard) for shard in text["shards"]]})


def read_run(output: Location) -> dict[str, Any]:
    """Returns what `claim_output` recorded: plan_fingerprint, plan, config, versions, planned_rows, job.

    Raises:
        InputError: `output` is not a dataset folder, or the record is damaged.
    """
    return _read_json(output, RUN)


def _read_json(output: Location, name: str) -> dict[str, Any]:
    fs, root = filesystem(output)
    try:
        return json.loads(fs.cat_file(f"{root}/{name}"))
    except FileNotFoundError as error:
        raise InputError(f"{output} is not a dataset folder: it holds no {name}") from error
    except ValueError as error:
        raise InputError(f"damaged file: {root}/{name}: {error}") from error


def _visible_names(output: Location) -> list[str]:
    """A claim that was interrupted may leave an unfinished file, whose name starts with a dot."""
    fs, root = filesystem(output)
    fs.invalidate_cache()
    names = (path.rstrip("/").rsplit("/", 1)[-1] for path in fs.ls(root, detail=False))
    return sorted(name for name in names if not name.startswith(".") and name != LEASE)


def _decided(plan: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what must not change while a dataset grows."""
    return {**plan, **{key: config[key] for key in SHAPING if key in config}}


def _changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Returns `key: old -> new` for each dotted key that differs."""
    before, after = _flat(old), _flat(new)
    return [
        f"{key}: {before.get(key, '(not set)')} -> {after.get(key, '(not set)')}"
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def _flat(tree: Any, prefix: str = "") -> dict[str, str]:
    if not isinstance(tree, Mapping) or not tree:
        return {prefix: json.dumps(tree)}
    return {
        name: value
        for key, child in tree.items()
        for name, value in _flat(child, f"{prefix}.{key}" if prefix else key).items()
    }


def _versions() -> dict[str, str]:
    installed = {dist: _version(dist) for dist in PACKAGES}
    return {dist: version for dist, version in installed.items() if version}


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _pretty(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()
