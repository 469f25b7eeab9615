"""Calibrates the labels of existing faces: the vote of the main job, over images that somebody else labelled.

    read -> vote -> calibrate -> write

The result has the columns of generated samples: `assigned_label` is the label the face came with, or null.
What is committed is not judged again.
"""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from synfer_ray.calibration.vote import ON_MISMATCH, check_roles
from synfer_ray.config import CalibrateConfig
from synfer_ray.errors import InputError, choose
from synfer_ray.reporting.finish import finish, is_finished
from synfer_ray.runtime import fit_pools, ray_session, run_shards
from synfer_ray.storage.bundle import find_bundle, model_fingerprints
from synfer_ray.storage.manifest import claim_output
from synfer_ray.storage.shards import done_indices, remove_orphans
from synfer_ray.taxonomy.expressions import resolve_label_order

if TYPE_CHECKING:
    from synfer_ray.faces.sources import FaceSource

UNDECIDING = ("output", "bundle", "voter_pool")
"""Settings that may change when a run is continued."""


def calibrate(config: CalibrateConfig) -> None:
    """Votes on every face of `config.input` and writes the outcome to `config.output`.

    Raises:
        InputError: the input holds no faces, a model is missing, or the output belongs to another plan.
    """
    from synfer_ray.faces.sources import Columns, open_source

    if not config.voters:
        raise InputError("voters is empty; labels are calibrated by at least one")
    check_roles(None, config.voters, None)
    choose(config.vote.on_mismatch, ON_MISMATCH, "vote.on_mismatch")
    columns = Columns(config.image_column, config.label_column, name=config.name_column)
    source = open_source(config.input, columns)
    models = model_fingerprints(find_bundle(config.bundle), config.voters, config.experts)
    settings = {key: value for key, value in asdict(config).items() if key not in UNDECIDING}
    plan: dict[str, Any] = settings | {"models": models, "input_rows": len(source)}
    claim_output(config.output, plan, config=asdict(config), planned_rows=len(source))

    done = done_indices(config.output)
    spans = [
        (first, min(first + config.shard_rows, len(source)) - 1)
        for first in range(0, len(source), config.shard_rows)
        if first not in done
    ]
    if not spans and is_finished(config.output):
        print(f"nothing to do: {config.output} holds all {len(source)} faces")
        return
    remove_orphans(config.output)
    if spans:
        run(config, source, spans)
    finish(config.output)


def run(config: CalibrateConfig, source: "FaceSource", spans: list[tuple[int, int]]) -> None:
    """Streams ranges of the input through the stages; every range is committed as soon as it is settled."""
    import pyarrow as pa

    with ray_session():
        import ray

        from synfer_ray.stages.calibrator import Calibrator
        from synfer_ray.stages.face_samples import FaceSamples
        from synfer_ray.stages.face_source import FaceReader
        from synfer_ray.stages.shard_writer import ShardWriter
        from synfer_ray.stages.voter import Voter

        reader = FaceReader(source, "input", label_names(config, source))
        light, (voters,) = fit_pools([config.voter_pool], len(spans))
        dataset = (
            ray.data.from_arrow([pa.table({"first": [first], "last": [last]}) for first, last in spans])
            .map_batches(reader, **light)
            .map_batches(FaceSamples(config.voters), **light)
            .map_batches(Voter, fn_constructor_args=(config, config.voters), **voters)
            .map_batches(Calibrator(config.voters, config.vote), **light)
            .map_batches(ShardWriter(config.output, config.voters), **light)
        )
        run_shards(dataset, sum(last - first + 1 for first, last in spans))


def label_names(config: CalibrateConfig, source: "FaceSource") -> tuple[str, ...]:
    """Returns the classes of integer labels: those of the settings, else those of the source, else none."""
    order = config.label_order
    names = order.split(",") if "," in order else order or source.label_names
    return resolve_label_order(names) if names else ()
