"""The main job on one page: a plan becomes a labelled, audited dataset of synthetic faces (paper 4.1).

    plan [-> enrich] -> generate and annotate -> vote -> calibrate -> write

Row k follows from the settings and k alone (`plan.py`). A block of the stream is one shard from the plan to
the disk; a row that a stage rejects stays in it, with the reason, so that rows planned = written + rejected.
What is committed is never made again: the same command continues, or finds nothing to do.
"""

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from synfer_ray.calibration.vote import check_roles, check_vote
from synfer_ray.config import AU_PRIORS, DTYPES, IMAGE_FORMATS, GenerateConfig
from synfer_ray.errors import PARTIAL, InputError, RunFailed, choose
from synfer_ray.language.models import api_key, check_language_model, model_fingerprint
from synfer_ray.plan import Plan, plan_row
from synfer_ray.prompts.instructions import TASKS
from synfer_ray.reporting.finish import finish, finished_manifest
from synfer_ray.reporting.pace import describe_counts
from synfer_ray.rounds import is_enough, lacking, rows_to_plan
from synfer_ray.runtime import fit_pools, ray_session, run_shards
from synfer_ray.stages.attempts import clear_attempts
from synfer_ray.stages.layout_pool import open_layouts
from synfer_ray.stall import Stalled
from synfer_ray.storage.au_prior import AU_PRIOR, Readings, read_au_prior
from synfer_ray.storage.bundle import (
    FERANNO,
    WEAK_UNET,
    WHOLENESS,
    autoguidance_scale,
    controlled_action_units,
    expert_fingerprint,
    find_bundle,
    model_fingerprints,
    pin_bundle,
    reads_expressions,
)
from synfer_ray.storage.lease import hold_lease
from synfer_ray.storage.manifest import check_plan, claim_output, read_manifest
from synfer_ray.storage.shards import read_commits, remove_orphans
from synfer_ray.storage.verify import discard_damaged

MIN_WHOLENESS, MIN_READABILITY = 0.8, 0.9
"""What a face needs where the settings say nothing."""


def generate(config: GenerateConfig, generator: type | None = None, repair: bool = False) -> None:
    """Generates the planned images into `config.output`, or what is missing of them.

    Args:
        generator: a stage that stands in for `ImageGenerator`, as in the benchmark's simulation.
        repair: reads every file, and makes damaged shards again.

    Raises:
        InputError: settings contradict each other, a model is missing, the output belongs to another plan, or
            another driver writes to it.
        RunFailed: no row was accepted, or too few of an expression within `max_images`.
    """
    bundle = find_bundle(config.bundle)
    check(config, bundle)
    plan = make_plan(config, bundle)
    manifest = None if repair else finished_manifest(config.output, plan.fingerprint)
    if manifest and is_enough(config, manifest):
        print(f"nothing to do: {config.output} holds all {manifest.planned_rows} images")
    else:
        with hold_lease(config.output):
            settle(plan, generator, repair)
            finish(config.output)
            clear_attempts(config.output)
        manifest = read_manifest(config.output)
    if lack := lacking(config, manifest.labels):
        raise RunFailed(
            f"{config.output} has too few images{describe_counts(lack)}: max_images is reached", PARTIAL
        )


def settle(plan: Plan, generator: type | None = None, repair: bool = False) -> None:
    """Runs what is missing, round after round, until every planned row is written or rejected."""
    config = plan.config
    if repair:
        check_plan(config.output, plan.inputs, asdict(config))
        discard_damaged(config.output)
    while True:
        commits = read_commits(config.output)
        done = {index for commit in commits for index in commit.settled}
        planned = rows_to_plan(config, commits)
        if max(done, default=-1) >= planned:
            raise InputError(
                f"{config.output} holds {len(done)} images already: num_images={planned} is fewer"
            )
        claim_output(config.output, plan.inputs, config=asdict(config), planned_rows=planned)
        remove_orphans(config.output, commits)
        remaining = [index for index in range(planned) if index not in done]
        if not remaining:
            return
        try:
            run(plan, remaining, generator, settled=len(done))
        except Stalled as stalled:
            print(f"{stalled}: starting again with what is missing", flush=True)


def run(plan: Plan, indices: Sequence[int], generator: type | None = None, settled: int = 0) -> None:
    """Streams the planned rows through the stages; every shard is committed as soon as it is settled.

    Args:
        settled: how many rows earlier runs settled.
    """
    import pyarrow as pa

    with ray_session():
        import ray

        from synfer_ray.stages.calibrator import Calibrator
        from synfer_ray.stages.enricher import Enricher
        from synfer_ray.stages.image_generator import ImageGenerator
        from synfer_ray.stages.planner import Planner
        from synfer_ray.stages.sample_rows import GENERATE, VOTE
        from synfer_ray.stages.shard_writer import ShardWriter
        from synfer_ray.stages.voter import Voter

        config = plan.config
        experts = [name for name in config.voters if name != FERANNO]  # FERAnno votes in the generator
        shards = [pa.table({"index": shard}) for shard in shards_of(indices, config.shard_rows)]
        pools = [config.generator_pool, config.voter_pool]
        pools += [config.enricher.pool] if config.enricher.is_model else []
        light, (generators, voters, *enrichers) = fit_pools(pools, len(shards))
        dataset = ray.data.from_arrow(shards).map_batches(Planner(plan), **light)
        for pool in enrichers:
            asked = (config, plan.models["enricher"], api_key(config.enricher))
            dataset = dataset.map_batches_internal(Enricher, fn_constructor_args=asked, **pool)
        dataset = (
            dataset.map_batches_internal(
                generator or ImageGenerator, fn_constructor_args=(config,), **generators
            )
            .map_batches_internal(Voter, fn_constructor_args=(config, experts), **voters)
            .map_batches(Calibrator(config.voters, config.vote), **light)
            .map_batches(ShardWriter(config.output, config.voters), **light)
        )
        actors = {GENERATE: generators["compute"].max_size, VOTE: voters["compute"].max_size}
        run_shards(dataset, len(indices), config.output, settled, actors)


def make_plan(config: GenerateConfig, bundle: Path) -> Plan:
    """Looks up what the settings point to: model files by their fingerprints, and the number of layouts.

    Raises:
        InputError: something is missing, or settings of the sampler do not go together.
    """
    experts = [*config.voters, *([config.guidance.guide] if config.guidance.guide else [])]
    models = model_fingerprints(bundle, experts, config.experts)
    wholeness, readability = config.min_wholeness, config.min_readability
    if wholeness is None:
        wholeness = MIN_WHOLENESS if models[WHOLENESS] else 0.0
    if readability is None:
        readability = MIN_READABILITY if reads_expressions(bundle) else 0.0
    if not (wholeness or readability):
        models[WHOLENESS] = None  # nothing looks
    if config.sampling.negative_prompt and config.sampling.guidance_scale == 1:
        raise InputError(
            f"sampling.negative_prompt={config.sampling.negative_prompt!r} has no weight with "
            "sampling.guidance_scale=1; a scale above 1 leads away from it"
        )
    weak_scale = autoguidance_scale(config.sampling, bool(models[WEAK_UNET]))
    if not weak_scale:
        models[WEAK_UNET] = None
    if config.enricher.is_model:
        models["enricher"] = model_fingerprint(config.enricher, TASKS)
    pool = open_layouts(config.layout, bundle)
    layouts = (pool.prefix, len(pool)) if pool else None
    bundle_name = pin_bundle(config.bundle)  # every node must load the same files
    sampling = replace(config.sampling, autoguidance_scale=weak_scale)
    pinned = replace(
        config,
        bundle=bundle_name,
        min_wholeness=wholeness,
        min_readability=readability,
        sampling=sampling,
    )
    plan = Plan(pinned, models, layouts, controlled_action_units(bundle), au_readings(config, bundle))
    plan_row(plan, 0)  # a wrong expression or attribute shows here
    return plan


def au_readings(config: GenerateConfig, bundle: Path) -> Readings | None:
    """Returns the action units of real faces that the plan draws from; None if it follows the textbooks.

    Raises:
        InputError: `au_prior=faces`, and the bundle has no readings.
    """
    folder = bundle / AU_PRIOR
    if config.au_prior == "textbook" or (config.au_prior is None and not folder.is_dir()):
        return None
    return read_au_prior(folder)


def check(config: GenerateConfig, bundle: Path) -> None:
    """Refuses settings that make no sense; above all, the guide is never a judge of what it guided.

    Raises:
        InputError: naming the setting.
    """
    leasts = {"num_images": 1, "batch_size": 1, "shard_rows": 1}
    leasts |= {"seed": 0, "accepted_per_class": 0, "max_images": 0}
    for key, least in leasts.items():
        if getattr(config, key) < least:
            raise InputError(f"{key}={getattr(config, key)}; at least {least} is needed")
    if config.shard_rows % config.batch_size:
        raise InputError(
            f"shard_rows={config.shard_rows} is not a multiple of batch_size={config.batch_size}: "
            "every shard would waste part of a batch"
        )
    if not config.voters:
        raise InputError("voters is empty; labels are calibrated by at least one")
    check_language_model(config.enricher, "enricher")
    for name, can_tell in (
        ("min_wholeness", (bundle / WHOLENESS).is_dir()),
        ("min_readability", reads_expressions(bundle)),
    ):
        least = getattr(config, name)
        if least is not None and not 0 <= least <= 1:
            raise InputError(f"{name}={least} is not in [0, 1]")
        if least and not can_tell:
            raise InputError(f"{name}={least}, but {bundle} has no {WHOLENESS}/ that has learnt to tell")
    if not 0 <= config.sampling.eta <= 1:
        raise InputError(f"sampling.eta={config.sampling.eta} is not in [0, 1]")
    if config.layout.mode == "ddim_inversion" and config.sampling.eta:
        raise InputError(
            f"sampling.eta={config.sampling.eta}: new noise takes the place of what ddim_inversion finds; "
            "it needs sampling.eta=0"
        )
    if config.au_prior is not None:
        choose(config.au_prior, AU_PRIORS, "au_prior")
    choose(config.dtype, DTYPES, "dtype")
    choose(config.image_format, IMAGE_FORMATS, "image_format")
    check_vote(config.vote)
    if guide := config.guidance.guide:
        check_roles(guide, config.voters, None)
        guide_model = expert_fingerprint(guide, bundle, config.experts)
        for name in config.voters:
            if expert_fingerprint(name, bundle, config.experts) == guide_model:
                raise InputError(f"voter {name!r} is the same model as guide {guide!r}: choose another voter")


def shards_of(indices: Sequence[int], shard_rows: int) -> list[list[int]]:
    """Groups plan indices by the shard they belong to, so that a resumed run makes the same shards."""
    shards: dict[int, list[int]] = {}
    for index in indices:
        shards.setdefault(index // shard_rows, []).append(index)
    return list(shards.values())
