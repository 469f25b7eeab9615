"""Calibrates the labels of existing faces: the vote of the main job, over images that somebody else labelled.

    read -> vote -> calibrate -> write

The vote takes place here, or on a server that holds the models.
The result has the columns of generated samples: `assigned_label` is the label the face came with, or null.
What is committed is not judged again.
"""

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from synfer_ray.calibration.vote import check_roles, check_vote
from synfer_ray.config import CalibrateConfig, PoolConfig
from synfer_ray.errors import InputError
from synfer_ray.reporting.finish import finish, finished_manifest
from synfer_ray.runtime import LIGHT_CPUS, fit_pools, ray_session, run_shards
from synfer_ray.stages.attempts import clear_attempts
from synfer_ray.storage.bundle import find_bundle, model_fingerprints
from synfer_ray.storage.fingerprint import fingerprint
from synfer_ray.storage.lease import hold_lease
from synfer_ray.storage.manifest import claim_output
from synfer_ray.storage.shards import read_commits, remove_orphans
from synfer_ray.storage.verify import discard_damaged
from synfer_ray.taxonomy.expressions import resolve_label_order

if TYPE_CHECKING:
    from ray.data import Dataset

    from synfer_ray.faces.sources import FaceSource

UNDECIDING = ("output", "bundle", "voter_pool", "server", "requests")
"""Settings that may change when a run is continued."""
SERVED = ("bundle", "voters", "experts", "faces", "vote", "image_size")
"""Settings that are the server's where one votes."""


def calibrate(config: CalibrateConfig, repair: bool = False) -> None:
    """Votes on every face of `config.input` and writes the outcome to `config.output`.

    Raises:
        InputError: the input holds no faces, a model is missing, or the output belongs to another plan.
    """
    from synfer_ray.faces.sources import Columns, open_source

    if not config.voters:
        raise InputError("voters is empty; labels are calibrated by at least one")
    check_roles(None, config.voters, None)
    check_vote(config.vote)
    columns = Columns(config.image_column, config.label_column, name=config.name_column)
    source = open_source(config.input, columns)
    if config.server:
        config, models = served(config)
    else:
        models = model_fingerprints(find_bundle(config.bundle), config.voters, config.experts)
    settings = {key: value for key, value in asdict(config).items() if not (config.server and key in SERVED)}
    plan: dict[str, Any] = {key: value for key, value in settings.items() if key not in UNDECIDING}
    plan |= {"models": models, "voters": config.voters, "input_rows": len(source)}
    if not repair and finished_manifest(config.output, fingerprint(plan)):
        print(f"nothing to do: {config.output} holds all {len(source)} faces")
        return
    with hold_lease(config.output):
        claim_output(config.output, plan, config=settings, planned_rows=len(source), job="calibrate")
        if repair:
            discard_damaged(config.output)
        commits = read_commits(config.output)
        done = {commit.first for commit in commits}
        remove_orphans(config.output, commits)
        starts = range(0, len(source), config.shard_rows)
        spans = [(first, min(first + config.shard_rows, len(source)) - 1) for first in starts]
        if missing := [span for span in spans if span[0] not in done]:
            run(config, source, missing, models)
        finish(config.output)
        clear_attempts(config.output)


def served(config: CalibrateConfig) -> tuple[CalibrateConfig, dict[str, str | None]]:
    """Returns the settings with the server's voters, asked by one actor, and the fingerprint of its models.

    Raises:
        InputError: a setting is given that is the server's, or no calibrator answers.
    """
    from synfer_ray.serving.remote_calibrator import bearer_token, connect

    for name in SERVED:
        if getattr(config, name) != getattr(CalibrateConfig(), name):
            raise InputError(f"{name} is decided by the server; leave out {name}, or server={config.server}")
    asker = PoolConfig(min_actors=1, num_cpus=LIGHT_CPUS)
    with connect(config, bearer_token(config)) as client:
        return replace(config, voters=list(client.voters), voter_pool=asker), {"server": client.fingerprint()}


def run(
    config: CalibrateConfig, source: "FaceSource", spans: list[tuple[int, int]], models: dict[str, str | None]
) -> None:
    """Streams ranges of the input through the stages; every range is committed as soon as it is settled."""
    import pyarrow as pa

    with ray_session():
        import ray

        from synfer_ray.stages.face_samples import FaceSamples
        from synfer_ray.stages.face_source import FaceReader
        from synfer_ray.stages.sample_rows import VOTE
        from synfer_ray.stages.shard_writer import ShardWriter

        reader = FaceReader(source, "input", label_names(config, source))
        light, (voters,) = fit_pools([config.voter_pool], len(spans))
        faces = (
            ray.data.from_arrow([pa.table({"first": [first], "last": [last]}) for first, last in spans])
            .map_batches(reader, **light)
            .map_batches(FaceSamples(config.voters), **light)
        )
        if config.server:
            settled = vote_there(faces, config, models["server"], voters)
        else:
            settled = vote_here(faces, config, voters, light)
        dataset = settled.map_batches(ShardWriter(config.output, config.voters), **light)
        to_do = sum(last - first + 1 for first, last in spans)
        run_shards(dataset, to_do, config.output, len(source) - to_do, {VOTE: voters["compute"].max_size})


def vote_here(
    faces: "Dataset", config: CalibrateConfig, voters: dict[str, Any], light: dict[str, Any]
) -> "Dataset":
    """Adds the votes of the models, and what follows from them."""
    from synfer_ray.stages.calibrator import Calibrator
    from synfer_ray.stages.voter import Voter

    return faces.map_batches_internal(
        Voter, fn_constructor_args=(config, config.voters), **voters
    ).map_batches(Calibrator(config.voters, config.vote), **light)


def vote_there(
    faces: "Dataset", config: CalibrateConfig, fingerprint: str | None, voters: dict[str, Any]
) -> "Dataset":
    """Adds what a server says that holds the same models."""
    from synfer_ray.serving.remote_calibrator import RemoteCalibrator, bearer_token

    arguments = (config, bearer_token(config), fingerprint)
    return faces.map_batches(RemoteCalibrator, fn_constructor_args=arguments, **voters)


def label_names(config: CalibrateConfig, source: "FaceSource") -> tuple[str, ...]:
    """Returns the classes of integer labels: those of the settings, else those of the source, else none."""
    order = config.label_order
    names = order.split(",") if "," in order else order or source.label_names
    return resolve_label_order(names) if names else ()
