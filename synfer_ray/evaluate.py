"""How good a generated dataset is, in the eyes of models that had no part in making it (paper 7)."""

import json
from typing import Any

import numpy as np

from synfer_ray.config import EvaluateConfig
from synfer_ray.errors import InputError
from synfer_ray.evaluation.action_units import macro_f1
from synfer_ray.evaluation.classification import accuracy, class_recalls, confusion_matrix
from synfer_ray.runtime import ray_session
from synfer_ray.storage.locations import filesystem, write_bytes
from synfer_ray.storage.manifest import read_manifest
from synfer_ray.taxonomy.expressions import EXPRESSIONS

FILE = "evaluation.json"


def evaluate(config: EvaluateConfig) -> None:
    """Judges the samples of `config.input`, writes `evaluation.json` beside them and prints the figures.

    Raises:
        InputError: the input is no generated dataset, or a judging model is missing.
    """
    shards = [shard.file for shard in read_manifest(config.input).shards if shard.file]
    if not shards:
        raise InputError(f"{config.input} holds no samples")
    figures = measure(judged_samples(config, shards))
    fs, root = filesystem(config.input)
    write_bytes(fs, f"{root}/{FILE}", (json.dumps(figures, indent=2) + "\n").encode())
    print("\n".join(f"{name:<32}{_plain(value)}" for name, value in figures.items()))


def judged_samples(config: EvaluateConfig, shards: list[str]) -> dict[str, np.ndarray]:
    """Runs the judge over all shards, as columns of arrays."""
    with ray_session():
        import ray
        from ray.data import ActorPoolStrategy

        from synfer_ray.stages.judge import Judge

        fs, root = filesystem(config.input)
        columns = ["image", "assigned_label", "label", "action_units"]
        judged = ray.data.read_parquet(
            [f"{root}/{shard}" for shard in shards], filesystem=fs, columns=columns
        )
        batches = list(
            judged.map_batches(
                Judge,
                fn_constructor_args=(config,),
                compute=ActorPoolStrategy(size=config.pool.min_actors or 1),
                num_cpus=config.pool.num_cpus,
                batch_size=32,
            ).iter_batches(batch_size=None)
        )
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def measure(samples: dict[str, np.ndarray]) -> dict[str, Any]:
    """FER accuracy against both labels and for each expression, and the macro F1 of the action units."""
    assigned = confusion_matrix(samples["assigned_label"], samples["judged"], len(EXPRESSIONS))
    calibrated = confusion_matrix(samples["label"], samples["judged"], len(EXPRESSIONS))
    recalls = zip(EXPRESSIONS, class_recalls(assigned).tolist())
    return {
        "samples": len(samples["judged"]),
        "fer_accuracy": accuracy(assigned),
        "fer_accuracy_calibrated": accuracy(calibrated),
        "au_macro_f1": macro_f1(samples["requested"], samples["found"]),
        "faces_found": float((~np.isnan(samples["found"]).all(axis=1)).mean()),
        **{f"fer_accuracy_{expression}": recall for expression, recall in recalls},
    }


def _plain(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"
