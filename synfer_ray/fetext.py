"""FEText (paper section 4.2.1): faces of any origin -> aligned faces with action units and captions.

    read and label -> filter -> align and read action units -> caption -> write

Two passes over the input. The first hashes every usable face, because a duplicate may lie anywhere; the
second makes the dataset. What an interrupted run has committed is not made again. Every row ends in a shard
or, with a reason, in the rejects.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from synfer_ray.config import FETextConfig, PoolConfig
from synfer_ray.errors import InputError, choose
from synfer_ray.faces.alignment import CROPS
from synfer_ray.faces.duplicates import Duplicate, FaceHash, find_duplicates
from synfer_ray.faces.preparation import MANY_FACES, NO_FACE
from synfer_ray.faces.sources import Columns, open_source
from synfer_ray.language.models import api_key, check_language_model, model_fingerprint
from synfer_ray.prompts.instructions import TASKS
from synfer_ray.reporting.card import write_card
from synfer_ray.reporting.fetext_summary import write_fetext_summary
from synfer_ray.reporting.finish import print_writers
from synfer_ray.runtime import fit_pools, ray_session, run_shards
from synfer_ray.stages.attempts import clear_attempts
from synfer_ray.stages.face_filter import FaceFilter, hash_faces
from synfer_ray.stages.face_source import FaceReader, label_names
from synfer_ray.storage.bundle import find_bundle, fingerprint_path
from synfer_ray.storage.lease import hold_lease
from synfer_ray.storage.manifest import claim_output, write_manifest
from synfer_ray.storage.shards import read_commits, remove_orphans
from synfer_ray.storage.verify import discard_damaged

if TYPE_CHECKING:
    from ray.data import Dataset

UNDECIDING = ("output", "bundle", "captioner", "face_pool")
"""Settings that may change when a run is continued, or of which only some decide a row."""

Span = tuple[int, int]
"""The first and the last row of a shard."""


def build_fetext(config: FETextConfig, repair: bool = False) -> None:
    """Builds `config.output`, or what is missing of it.

    Raises:
        InputError: the settings contradict each other, the input holds no faces, a model file is missing, or
            the output belongs to another plan.
    """
    labeler = check(config)
    columns = Columns(config.image_column, config.label_column, config.vote_column, config.name_column)
    source = open_source(config.input, columns)
    votes = label_names(config.vote_order) if config.vote_column else ()
    labels = label_names(config.label_order, source)
    reader = FaceReader(source, config.source, labels, votes, config.label_votes)
    settings = {key: value for key, value in asdict(config).items() if key not in UNDECIDING}
    models = {"au_labeler": fingerprint_path(labeler) if labeler else None}
    if captioner := config.captioner.deciding():
        settings["captioner"] = captioner
        models["captioner"] = model_fingerprint(config.captioner, TASKS)
    plan: dict[str, Any] = settings | {"models": models, "input_rows": len(source)}
    starts = range(0, len(source), config.shard_rows)
    spans = [(first, min(first + config.shard_rows, len(source)) - 1) for first in starts]
    with hold_lease(config.output):
        claim_output(config.output, plan, config=asdict(config), planned_rows=len(source), job="fetext")
        if repair:
            discard_damaged(config.output)
        commits = read_commits(config.output)
        done = {commit.first for commit in commits}
        remove_orphans(config.output, commits)
        if missing := [span for span in spans if span[0] not in done]:
            with ray_session():
                duplicates = find_duplicates(face_hashes(spans, reader, config))
                dataset = fetext_dataset(
                    missing, reader, duplicates, labeler, models.get("captioner"), config
                )
                to_do = sum(last - first + 1 for first, last in missing)
                run_shards(dataset, to_do, config.output, len(source) - to_do)
        finish(config)
        clear_attempts(config.output)


def face_hashes(spans: list[Span], reader: FaceReader, config: FETextConfig) -> list[FaceHash]:
    """The first pass: the hashes of every face that the filter lets through."""
    light, _ = fit_pools([])
    face_filter = FaceFilter(config.min_side, config.min_sharpness)
    dataset = blocks(spans).map_batches(reader, **light).map_batches(face_filter, **light)
    return [FaceHash(**row) for row in dataset.map_batches(hash_faces, **light).iter_rows()]


def fetext_dataset(
    spans: list[Span],
    reader: FaceReader,
    duplicates: Mapping[int, Duplicate],
    labeler: Path | None,
    captioner: str | None,
    config: FETextConfig,
) -> "Dataset":
    """The second pass: the graph from the spans to one row {rows, rejects} for each committed shard.

    Args:
        labeler: the network that labels action units.
        captioner: the fingerprint of the model that writes captions, in place of the template grammar.
    """
    from synfer_ray.stages.action_unit_labeler import ActionUnitLabeler
    from synfer_ray.stages.captioner import Captioner
    from synfer_ray.stages.face_aligner import FaceAligner
    from synfer_ray.stages.face_writer import FaceWriter
    from synfer_ray.stages.model_captioner import ModelCaptioner

    stages: list[tuple[type, tuple[Any, ...], PoolConfig]] = [(FaceAligner, (config,), config.face_pool)]
    if labeler:
        stages.append((ActionUnitLabeler, (config, str(labeler)), config.face_pool))
    if captioner:
        key = api_key(config.captioner)
        stages.append((ModelCaptioner, (config, captioner, key), config.captioner.pool))
    light, pools = fit_pools([pool for _, _, pool in stages])
    face_filter = FaceFilter(config.min_side, config.min_sharpness, duplicates)
    dataset = blocks(spans).map_batches(reader, **light).map_batches(face_filter, **light)
    for (stage, arguments, _), pool in zip(stages, pools):
        dataset = dataset.map_batches_internal(stage, fn_constructor_args=arguments, **pool)
    if not captioner:
        dataset = dataset.map_batches(Captioner(config.seed), **light)
    return dataset.map_batches(FaceWriter(config.output, config.source, config.license), **light)


def blocks(spans: list[Span]) -> "Dataset":
    """Returns a dataset with one span a block."""
    import pyarrow as pa
    import ray

    return ray.data.from_arrow([pa.table({"first": [first], "last": [last]}) for first, last in spans])


def finish(config: FETextConfig) -> None:
    """Writes manifest, summary and card, and prints where to look.

    Raises:
        RuntimeError: not one face was accepted.
    """
    manifest = write_manifest(config.output)
    rows, rejects = manifest.totals["rows"], manifest.totals["rejects"]
    reasons = ", ".join(f"{reason} {count}" for reason, count in manifest.reject_reasons.items())
    if not rows:
        raise RuntimeError(f"all {rejects} faces were rejected: {reasons}")
    write_fetext_summary(config.output, manifest)
    write_card(config.output, name=f"FEText of {config.source}")
    print(f"{config.output}: {rows} faces, {rejects} rejected{f' ({reasons})' if reasons else ''}")
    print_writers("captions", manifest)


def check(config: FETextConfig) -> Path | None:
    """Refuses settings that contradict each other; returns the network that labels action units, if any.

    Raises:
        InputError: naming the setting that is missing or wrong.
    """
    choose(config.au_labeler, ("mediapipe", "bundle", "open_graph_au", "none"), "au_labeler")
    choose(config.ambiguous_units, ("keep", "unknown"), "ambiguous_units")
    choose(config.crop, CROPS, "crop")
    check_language_model(config.captioner, "captioner")
    choose(config.no_face, NO_FACE, "no_face policy")
    choose(config.many_faces, MANY_FACES, "many_faces policy")
    if config.shard_rows < 1:
        raise InputError(f"shard_rows={config.shard_rows}; at least 1 is needed")
    if not 0 <= config.label_votes < math.inf:
        raise InputError(f"label_votes={config.label_votes}: a label counts as 0 further votes or more")
    if config.label_votes and not (config.label_column and config.vote_column):
        raise InputError(f"label_votes={config.label_votes} needs both label_column and vote_column")
    if not config.landmarker_model and (config.au_labeler == "mediapipe" or config.align):
        raise InputError(
            "au_labeler=mediapipe and align=true need landmarker_model=FILE.task; "
            "without it choose align=false and au_labeler=bundle, open_graph_au or none"
        )
    for path in (config.landmarker_model, "" if config.upscaler == "lanczos" else config.upscaler):
        if path and not Path(path).is_file():
            raise InputError(f"missing model file: {path}")
    if config.au_labeler == "open_graph_au":
        if not Path(config.au_checkpoint).is_file():
            raise InputError(
                f"au_labeler=open_graph_au needs a released file: none at {config.au_checkpoint!r}"
            )
        return Path(config.au_checkpoint)
    if config.au_labeler != "bundle":
        return None
    folder = find_bundle(config.bundle) / "au_labeler"
    if not folder.is_dir():
        raise InputError(f"bundle {config.bundle} has no au_labeler")
    return folder
