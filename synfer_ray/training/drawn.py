"""Latents that a bundle's model draws, as for `synfer generate`: its decoder and itself learn from them."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
import pyarrow as pa
import torch

from synfer_ray.config import GenerateConfig, TrainingConfig
from synfer_ray.errors import InputError
from synfer_ray.plan import Plan
from synfer_ray.storage.au_prior import AU_PRIOR, read_au_prior
from synfer_ray.storage.bundle import WHOLENESS, controlled_action_units, expert_spec, model_fingerprints
from synfer_ray.training.data import gather, tokenize, training_image_size
from synfer_ray.training.preference import pair_up, preference

if TYPE_CHECKING:
    import ray.data

Columns = dict[str, np.ndarray]

BATCH = 16
SEED = 77
"""Not that of the datasets that are made and measured later."""
HELD_OUT = 8
"""Of so many draws of an expression one is for validation."""
PAIRS_A_DRAW = 2


class LatentDrawer:
    """A Ray actor: row numbers in, their latents out."""

    def __init__(self, config: GenerateConfig):
        from synfer_ray.stages.image_generator import ImageGenerator
        from synfer_ray.stages.model_stage import loaded
        from synfer_ray.stages.planner import Planner

        self.bundle = Path(config.bundle)
        prior = self.bundle / AU_PRIOR
        plan = Plan(
            config,
            model_fingerprints(self.bundle, [], {}),
            controlled=controlled_action_units(self.bundle),
            readings=read_au_prior(prior) if prior.is_dir() else None,
        )
        self.planner = Planner(plan)
        self.generator = loaded(ImageGenerator(config))

    def __call__(self, batch: Columns) -> Columns:
        """Draws `latents` [B,C,h,w], scaled as the U-Net sees them, float16."""
        from synfer_ray.stages.sample_rows import device_batches

        rows = self.planner(pa.table({"index": batch["index"]})).to_pylist()
        parts = []
        for group, filled in device_batches(rows, self.generator.config.batch_size):
            numbers = np.array([row["index"] for row in group])
            drawn = self.draw(filled)
            places = numbers % len(filled)
            parts.append({"sample_id": numbers} | {name: values[places] for name, values in drawn.items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def draw(self, rows: list[dict]) -> Columns:
        """What comes of a whole batch of planned rows."""
        return {"latents": self.generator.sample(rows).latents.half().cpu().numpy()}


class ScoredDrawer(LatentDrawer):
    """As well: what was asked for (`input_ids`, `action_units`, `label`), and how good it looks (`score`)."""

    def __init__(self, config: GenerateConfig, experts: list[str]):
        from synfer_ray.calibration.experts import load_network
        from synfer_ray.calibration.wholeness import WholenessNet
        from synfer_ray.storage.weights import load_model

        super().__init__(config)
        device = self.generator.components.device
        self.wholeness = load_model(WholenessNet, self.bundle / WHOLENESS).to(device)
        self.experts = [load_network(expert_spec(name, self.bundle, {})).to(device) for name in experts]

    def draw(self, rows: list[dict]) -> Columns:
        """Draws the rows and looks at them."""
        from synfer_ray.diffusion.components import decode_latents

        components = self.generator.components
        latents = self.generator.sample(rows).latents
        label = np.array([row["assigned_label"] for row in rows])
        with torch.inference_mode():
            images = decode_latents(components, latents).float().clamp(-1, 1)
            wholeness = self.wholeness(images)[0].cpu().numpy()
            opinions = torch.stack([expert(images).softmax(1) for expert in self.experts]).mean(0)
        agreement = opinions.cpu().numpy()[np.arange(len(rows)), label]
        return {
            "latents": latents.half().cpu().numpy(),
            "input_ids": tokenize(components.tokenizer, [row["prompt"] for row in rows]),
            "action_units": np.array([row["action_units"] for row in rows], np.float32),
            "label": label,
            "score": preference(wholeness, agreement),
        }


def draw_latents(config: TrainingConfig) -> np.ndarray:
    """Draws `config.decoder_draws` latents of all expressions in turn, rounded up to whole batches."""
    return _drawn(config, LatentDrawer, config.decoder_draws)["latents"]


def preferred_pairs(config: TrainingConfig) -> "ray.data.Dataset":
    """Pairs of `config.preference_draws` draws, the better first; the last are of draws of their own.

    Raises:
        InputError: there are too few draws, or no expert beside the guide.
    """
    import ray.data

    drawn = _drawn(config, ScoredDrawer, config.preference_draws, judges(Path(config.bundle)))
    labels, scores = drawn["label"], drawn["score"]
    is_held_out = np.arange(len(labels)) // len(np.unique(labels)) % HELD_OUT == 0
    rng = np.random.default_rng(config.preference.seed)
    count = PAIRS_A_DRAW * len(labels)
    pairs: list[list[int]] = []
    for held_out, wanted in ((False, count), (True, min(config.preference.validation_rows, count // 4))):
        rows = np.flatnonzero(is_held_out == held_out)
        found = pair_up(scores[rows], labels[rows], wanted, rng)
        if not len(found) and wanted:
            raise InputError(f"preference_draws={config.preference_draws} are too few to be told apart")
        pairs += rows[found].tolist()
    items = [{"sample_id": number, "pair": pair} for number, pair in enumerate(pairs)]
    columns = {name: drawn[name] for name in ("latents", "input_ids", "action_units")}
    return ray.data.from_items(items).map_batches(partial(take_pairs, drawn=columns))


def judges(bundle: Path) -> list[str]:
    """The bundle's experts but the guide, which is no judge of what it guided.

    Raises:
        InputError: there is none.
    """
    guide = GenerateConfig().guidance.guide
    experts = bundle / "experts"
    names = sorted(folder.name for folder in experts.iterdir()) if experts.is_dir() else []
    if not (others := [name for name in names if name != guide]):
        raise InputError(f"{experts} has no expert beside the guide that could tell what a face shows")
    return others


def take_pairs(batch: Columns, drawn: Columns) -> Columns:
    """Puts both rows of each `pair` [B,2] in its place."""
    pairs = np.stack(list(batch["pair"]))
    return {"sample_id": batch["sample_id"]} | {name: column[pairs] for name, column in drawn.items()}


def _drawn(config: TrainingConfig, drawer: type, count: int, *arguments: Any) -> Columns:
    import ray.data

    drawing = GenerateConfig(
        output=config.runs,
        seed=SEED,
        bundle=config.bundle,
        image_size=training_image_size(config),
        voters=[],
        min_wholeness=0.0,
        min_readability=0.0,
        batch_size=BATCH,
    )
    batches = -(-count // BATCH)
    numbers = ray.data.range(batches * BATCH, override_num_blocks=batches).rename_columns({"id": "index"})
    drawn = numbers.map_batches(
        drawer,
        fn_constructor_args=(drawing, *arguments),
        batch_size=BATCH,
        num_cpus=config.workers.num_cpus,
        num_gpus=1 if config.workers.use_gpu else 0,
        compute=ray.data.ActorPoolStrategy(size=config.workers.num_workers),
    )
    return gather(drawn.iter_batches(batch_size=BATCH, batch_format="numpy"))


def lend(batch: Columns, latents: np.ndarray) -> Columns:
    """Gives each row one of the drawn `latents` [N,C,h,w] as `drawn`; which one follows from its id."""
    places = [crc32(str(name).encode()) % len(latents) for name in batch["sample_id"]]
    return batch | {"drawn": latents[places]}
