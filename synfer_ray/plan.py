"""The plan: everything about sample k, before any model runs, follows from the settings and k alone.

Actors, blocks and restarts may come in any number and order; row k stays what it is.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from synfer_ray.config import GenerateConfig
from synfer_ray.errors import InputError
from synfer_ray.prompts import FRONTAL, sample_attributes, write_caption
from synfer_ray.storage.au_prior import Readings
from synfer_ray.storage.fingerprint import fingerprint
from synfer_ray.taxonomy.action_units import ACTION_UNITS as UNITS
from synfer_ray.taxonomy.au_priors import sample_action_units
from synfer_ray.taxonomy.compounds import components_of, parse_any_expression
from synfer_ray.taxonomy.expressions import EXPRESSIONS, parse_expression

ACTION_UNITS, ATTRIBUTES, PROMPT, LAYOUT, NOISE = range(5)
"""Streams of random numbers: a new draw in one leaves the others as they are."""

UNDECIDING = (
    "output",
    "num_images",
    "accepted_per_class",
    "max_images",
    "bundle",
    "enricher",
    "shard_rows",
    "generator_pool",
    "voter_pool",
    "overlays",
)
"""Settings that may change when a run is continued: no row depends on them, or not on all of them."""


@dataclass(frozen=True)
class Plan:
    """The settings, and what they point to.

    Attributes:
        models: fingerprints of the diffusion model, its AU adapter, every expert and, if there is one, the
            language model that words the prompts.
        layouts: prefix and number of the faces that layouts are drawn from; None starts from noise.
        controlled: the action units that the adapter was trained on; all others are left unknown.
        readings: action units of real faces to draw from; None follows the textbooks.
    """

    config: GenerateConfig
    models: Mapping[str, str | None]
    layouts: tuple[str, int] | None = None
    controlled: Sequence[str] = UNITS
    readings: Readings | None = field(default=None, compare=False, repr=False)

    @property
    def inputs(self) -> dict[str, Any]:
        """What decides the rows: samples made with other values belong to another plan."""
        settings = {key: value for key, value in asdict(self.config).items() if key not in UNDECIDING}
        enricher = self.config.enricher.deciding()
        return (
            settings
            | ({"enricher": enricher} if enricher else {})
            | {"models": dict(self.models), "layouts": self.layouts}
        )

    @cached_property
    def fingerprint(self) -> str:
        """Names the plan; part of every sample's id."""
        return fingerprint(self.inputs)


@dataclass(frozen=True)
class PlanRow:
    """One planned image, in the columns of a sample.

    Attributes:
        assigned_label: index in EXPRESSIONS; of a compound expression, its dominant part.
        action_units: [41] intensities in the order of taxonomy.action_units; NaN where not controlled.
        attributes: JSON.
        prompt: of the template grammar; a language model may word it anew.
        seed: of the row's noise.
        layout_source: the face that lends its layout, `<pool>-<number>`.
    """

    sample_id: str
    index: int
    assigned_label: int
    compound: str | None
    action_units: list[float]
    attributes: str
    prompt: str
    seed: int
    layout_source: str | None
    model_fingerprint: str | None
    adapter_fingerprint: str | None


def plan_row(plan: Plan, index: int) -> PlanRow:
    """Plans image `index`: a pure function.

    Raises:
        InputError: an expression, attribute or share in the settings is not valid.
    """
    config = plan.config
    expression = expression_of(config, index)
    compound = None if expression in EXPRESSIONS else expression
    action_units = _action_units(plan, expression, _rng(config, index, ACTION_UNITS))
    attributes = FRONTAL | sample_attributes(config.attributes, _rng(config, index, ATTRIBUTES))
    described = action_units if config.describe_action_units else np.full_like(action_units, np.nan)
    return PlanRow(
        sample_id=f"{plan.fingerprint}-{index:08d}",
        index=index,
        assigned_label=EXPRESSIONS.index(components_of(expression)[0]),
        compound=compound,
        action_units=action_units.tolist(),
        attributes=json.dumps(attributes),
        prompt=write_caption(expression, described, attributes, _rng(config, index, PROMPT)),
        seed=_noise_seed(config, index),
        layout_source=_layout_source(plan, _rng(config, index, LAYOUT)),
        model_fingerprint=plan.models["model"],
        adapter_fingerprint=plan.models["adapter"],
    )


def expression_of(config: GenerateConfig, index: int) -> str:
    """Deals out the expressions in turn; every 1 / compound_share rows a compound one comes between.

    Raises:
        InputError: an unknown expression, an empty list of them, or a share outside [0, 1].
    """
    basic = [parse_expression(name) for name in config.expressions]
    compounds = [parse_any_expression(name) for name in config.compounds]
    share = config.compound_share
    if not 0 <= share <= 1:
        raise InputError(f"compound_share {share} is not in [0, 1]")
    if not basic or (share and not compounds):
        raise InputError(
            "expressions (and compounds, with a compound_share) must name at least one expression"
        )
    compounds_before, compounds_after = int(index * share), int((index + 1) * share)
    if compounds_after > compounds_before:
        return compounds[compounds_before % len(compounds)]
    return basic[(index - compounds_before) % len(basic)]


def _action_units(plan: Plan, expression: str, rng: np.random.Generator) -> NDArray[np.float32]:
    """Those of a real face of the expression; where none is at hand, as of compound ones, textbooks'."""
    faces = (plan.readings or {}).get(expression)
    drawn = sample_action_units(expression, rng) if faces is None else faces[rng.integers(len(faces))]
    return np.where(np.isin(UNITS, plan.controlled), drawn, np.float32(np.nan))


def _layout_source(plan: Plan, rng: np.random.Generator) -> str | None:
    if plan.layouts is None:
        return None
    prefix, count = plan.layouts
    return f"{prefix}-{int(rng.integers(count)):08d}"


def _noise_seed(config: GenerateConfig, index: int) -> int:
    """Counts up from a random number: torch reads 32 bits of a seed, of which a million draws repeat some."""
    first = int(np.random.default_rng([config.seed, NOISE]).integers(2**32))
    return (first + index) % 2**32


def _rng(config: GenerateConfig, index: int, stream: int) -> np.random.Generator:
    return np.random.default_rng([config.seed, index, stream])
