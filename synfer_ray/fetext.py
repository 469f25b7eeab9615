"""FEText (paper section 4.2.1): faces of any origin -> aligned faces with action units and captions.

    read and label -> filter -> align and read action units -> caption -> write

Two passes over the input. The first hashes every usable face, because a duplicate may lie anywhere; the
second makes the dataset. What an interrupted run has committed is not made again. Every row ends in a shard
or, with a reason, in the rejects.
"""

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset

from synfer_ray.config import FETextConfig
from synfer_ray.errors import InputError, choose
from synfer_ray.faces.duplicates import Duplicate, FaceHash, find_duplicates
from synfer_ray.faces.sources import Columns, FaceSource, open_source
from synfer_ray.reporting.card import write_card
from synfer_ray.reporting.fetext_summary import write_fetext_summary
from synfer_ray.stages.action_unit_labeler import ActionUnitLabeler
from synfer_ray.stages.captioner import Captioner
from synfer_ray.stages.face_aligner import FaceAligner
from synfer_ray.stages.face_filter import FaceFilter, hash_faces
from synfer_ray.stages.face_source import FaceReader
from synfer_ray.stages.face_writer import FaceWriter
from synfer_ray.storage.fingerprint import fingerprint_folder
from synfer_ray.storage.manifest import claim_output, write_manifest
from synfer_ray.storage.shards import read_commits, remove_orphans
from synfer_ray.taxonomy.expressions import resolve_label_order

TABLES: dict[str, Any] = {"batch_format": "pyarrow", "batch_size": None}
LIGHT: dict[str, Any] = TABLES | {"num_cpus": 0.25}
"""With three quarters of a CPU for an actor and one quarter for a task, one CPU is enough for the job."""

Span = dict[str, int]


def build_fetext(config: FETextConfig) -> None:
    """Builds, or goes on building, the dataset in `config.output`: shards, rejects, manifest and card.

    Raises:
        InputError: the settings contradict each other, the input holds no faces, a model file is missing, or
            the output belongs to another plan.
    """
    check_labeler(config)
    columns = Columns(config.image_column, config.label_column, config.vote_column, config.name_column)
    source = open_source(config.input, columns)
    reader = FaceReader(source, config.source, label_names(config, source), vote_names(config))
    claim_output(config.output, plan(config, len(source)), config=asdict(config), planned_rows=len(source))
    remove_orphans(config.output)

    spans = [
        {"first": first, "last": min(first + config.shard_rows, len(source)) - 1}
        for first in range(0, len(source), config.shard_rows)
    ]
    done = {commit.first for commit in read_commits(config.output)}
    if missing := [span for span in spans if span["first"] not in done]:
        DataContext.get_current().target_max_block_size = None  # a block is a span, however large
        duplicates = find_duplicates(face_hashes(spans, reader, config))
        report_progress(fetext_dataset(missing, reader, duplicates, config), spans=len(missing))
    manifest = write_manifest(config.output)
    write_fetext_summary(config.output, manifest)
    write_card(config.output, name=f"FEText of {config.source}")
    print(f"FEText is in {config.output}: start with its README.md")


def fetext_dataset(
    spans: list[Span], reader: FaceReader, duplicates: Mapping[int, Duplicate], config: FETextConfig
) -> Dataset:
    """The graph. A block is one span from end to end; the result has one row {rows, rejects} a span."""
    face_filter = FaceFilter(config.min_side, config.min_sharpness, duplicates)
    dataset = blocks(spans).map_batches(reader, **LIGHT).map_batches(face_filter, **LIGHT)
    dataset = dataset.map_batches(
        FaceAligner,
        fn_constructor_kwargs={
            "size": config.image_size,
            "landmarker_model": config.landmarker_model,
            "align": config.align,
            "label": config.au_labeler == "mediapipe",
            "upscaler": config.upscaler,
            "device": device(config),
        },
        **actors(config),
    )
    if config.au_labeler == "bundle":
        dataset = dataset.map_batches(
            ActionUnitLabeler,
            fn_constructor_kwargs={"folder": f"{config.bundle}/au_labeler", "device": device(config)},
            **actors(config),
        )
    dataset = dataset.map_batches(Captioner(config.seed), **LIGHT)
    return dataset.map_batches(FaceWriter(config.output, config.source, config.license), **LIGHT)


def face_hashes(spans: list[Span], reader: FaceReader, config: FETextConfig) -> Iterator[FaceHash]:
    """The first pass: the hashes of every face that the filter lets through."""
    face_filter = FaceFilter(config.min_side, config.min_sharpness)
    hashes = blocks(spans).map_batches(reader, **LIGHT).map_batches(face_filter, **LIGHT)
    for row in hashes.map_batches(hash_faces, **LIGHT).iter_rows():
        yield FaceHash(**row)


def blocks(spans: list[Span]) -> Dataset:
    """Returns a dataset with one span a block."""
    return ray.data.from_items(spans, override_num_blocks=len(spans))


def actors(config: FETextConfig) -> dict[str, Any]:
    """Returns how Ray runs the stages that hold a model."""
    pool = ActorPoolStrategy(min_size=1, max_size=config.concurrency, initial_size=config.concurrency)
    return TABLES | {"compute": pool, "num_cpus": 0.75, "num_gpus": config.num_gpus}


def report_progress(dataset: Dataset, spans: int) -> None:
    """Runs the dataset and prints a line per finished span."""
    started, faces, rejects = time.monotonic(), 0, 0
    for number, shard in enumerate(dataset.iter_rows(), start=1):
        faces, rejects = faces + shard["rows"], rejects + shard["rejects"]
        rate = (faces + rejects) / (time.monotonic() - started)
        print(f"shard {number}/{spans}: {faces} faces, {rejects} rejects, {rate:.1f} images/s", flush=True)


def check_labeler(config: FETextConfig) -> None:
    """Checks that the models are there which the settings ask for.

    Raises:
        InputError: naming the key that is missing or wrong.
    """
    choose(config.au_labeler, ("mediapipe", "bundle", "none"), "au_labeler")
    if not config.landmarker_model and (config.au_labeler == "mediapipe" or config.align):
        raise InputError(
            "au_labeler=mediapipe and align=true need landmarker_model=FILE.task; "
            "without it use align=false au_labeler=bundle bundle=FOLDER, or au_labeler=none"
        )
    if config.au_labeler == "bundle" and not config.bundle:
        raise InputError("au_labeler=bundle needs bundle=FOLDER")
    for path in (config.landmarker_model, "" if config.upscaler == "lanczos" else config.upscaler):
        if path and not Path(path).is_file():
            raise InputError(f"missing model file: {path}")


def plan(config: FETextConfig, rows: int) -> dict[str, Any]:
    """Returns everything that decides the rows of the dataset."""
    settings = asdict(config)
    for key in ("output", "concurrency", "num_gpus"):
        del settings[key]
    folder = f"{config.bundle}/au_labeler"
    labeler = fingerprint_folder(folder) if config.au_labeler == "bundle" else None
    return settings | {"input_rows": rows, "au_labeler_fingerprint": labeler}


def device(config: FETextConfig) -> str:
    """Returns where the actors' networks run."""
    return "cuda" if config.num_gpus > 0 else "cpu"


def label_names(config: FETextConfig, source: FaceSource) -> tuple[str, ...]:
    """Returns the classes of integer labels: those of the settings, else those of the source, else none."""
    names = class_names(config.label_order) if config.label_order else source.label_names
    return resolve_label_order(names) if names else ()


def vote_names(config: FETextConfig) -> tuple[str, ...]:
    """Returns the classes of the vote column."""
    return resolve_label_order(class_names(config.vote_order)) if config.vote_column else ()


def class_names(spec: str) -> str | list[str]:
    """Splits `happy, sad, ...`; a single word is the key of a known order."""
    return [name.strip() for name in spec.split(",")] if "," in spec else spec
