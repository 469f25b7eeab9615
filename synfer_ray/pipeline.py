"""The main job on one page: a plan becomes a labelled, audited dataset of synthetic faces (paper 4.1).

    plan -> generate and annotate -> vote -> calibrate -> write

Row k follows from the settings and k alone (`plan.py`). A block of the stream is one shard from the plan to
the disk; a row that a stage rejects stays in it, with the reason, so that rows planned = written + rejected.
What is committed is never made again: the same command continues, or finds nothing to do.
"""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from synfer_ray.calibration.vote import ON_MISMATCH, check_roles
from synfer_ray.config import DTYPES, IMAGE_FORMATS, GenerateConfig
from synfer_ray.errors import InputError, choose
from synfer_ray.plan import Plan, plan_row
from synfer_ray.reporting.finish import finish, is_finished
from synfer_ray.runtime import fit_pools, ray_session, run_shards
from synfer_ray.stages.layout_pool import open_layouts
from synfer_ray.storage.bundle import (
    FERANNO,
    controlled_action_units,
    expert_fingerprint,
    find_bundle,
    model_fingerprints,
)
from synfer_ray.storage.manifest import claim_output
from synfer_ray.storage.shards import done_indices, remove_orphans


def generate(config: GenerateConfig) -> None:
    """Generates `config.num_images` images into `config.output`, or what is missing of them.

    Raises:
        InputError: settings contradict each other, a model is missing, or the output belongs to another plan.
    """
    bundle = find_bundle(config.bundle)
    check(config, bundle)
    plan = make_plan(config, bundle)
    done = done_indices(config.output)
    if max(done, default=-1) >= config.num_images:
        raise InputError(
            f"{config.output} holds {len(done)} images already: num_images={config.num_images} is fewer"
        )
    claim_output(config.output, plan.inputs, config=asdict(config), planned_rows=config.num_images)
    remaining = [index for index in range(config.num_images) if index not in done]
    if not remaining and is_finished(config.output):
        print(f"nothing to do: {config.output} holds all {config.num_images} images")
        return
    remove_orphans(config.output)
    if remaining:
        run(plan, remaining)
    finish(config.output)


def run(plan: Plan, indices: Sequence[int]) -> None:
    """Streams the planned rows through the stages; every shard is committed as soon as it is settled."""
    import pyarrow as pa

    with ray_session():
        import ray

        from synfer_ray.stages.calibrator import Calibrator
        from synfer_ray.stages.image_generator import ImageGenerator
        from synfer_ray.stages.planner import Planner
        from synfer_ray.stages.shard_writer import ShardWriter
        from synfer_ray.stages.voter import Voter

        config = plan.config
        experts = [name for name in config.voters if name != FERANNO]  # FERAnno votes in the generator
        shards = [pa.table({"index": shard}) for shard in shards_of(indices, config.shard_rows)]
        light, (generators, voters) = fit_pools([config.generator_pool, config.voter_pool], len(shards))
        dataset = (
            ray.data.from_arrow(shards)
            .map_batches(Planner(plan), **light)
            .map_batches(ImageGenerator, fn_constructor_args=(config,), **generators)
            .map_batches(Voter, fn_constructor_args=(config, experts), **voters)
            .map_batches(Calibrator(config.voters, config.vote), **light)
            .map_batches(ShardWriter(config.output, config.voters), **light)
        )
        run_shards(dataset, len(indices))


def make_plan(config: GenerateConfig, bundle: Path) -> Plan:
    """Looks up what the settings point to: model files by their fingerprints, and the number of layouts."""
    experts = [*config.voters, *([config.guidance.guide] if config.guidance.guide else [])]
    models = model_fingerprints(bundle, experts, config.experts)
    pool = open_layouts(config.layout, bundle)
    layouts = (pool.prefix, len(pool)) if pool else None
    plan = Plan(config, models, layouts, controlled_action_units(bundle))
    plan_row(plan, 0)  # a wrong expression or attribute shows here
    return plan


def check(config: GenerateConfig, bundle: Path) -> None:
    """Refuses settings that make no sense; above all, the guide is never a judge of what it guided.

    Raises:
        InputError: naming the setting.
    """
    for key, least in {"num_images": 1, "batch_size": 1, "shard_rows": 1, "seed": 0}.items():
        if getattr(config, key) < least:
            raise InputError(f"{key}={getattr(config, key)}; at least {least} is needed")
    if config.shard_rows % config.batch_size:
        raise InputError(
            f"shard_rows={config.shard_rows} is not a multiple of batch_size={config.batch_size}: "
            "every shard would waste part of a batch"
        )
    if not config.voters:
        raise InputError("voters is empty; labels are calibrated by at least one")
    choose(config.dtype, DTYPES, "dtype")
    choose(config.image_format, IMAGE_FORMATS, "image_format")
    choose(config.vote.on_mismatch, ON_MISMATCH, "vote.on_mismatch")
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
