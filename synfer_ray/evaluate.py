"""How good a generated dataset is, in the eyes of models that had no part in making it (paper 7)."""

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.dataset

from synfer_ray.config import EvaluateConfig, PoolConfig
from synfer_ray.errors import InputError
from synfer_ray.evaluation.action_units import macro_f1
from synfer_ray.evaluation.classification import accuracy, class_recalls, confusion_matrix
from synfer_ray.evaluation.image_sets import ImageSet, compare, hold_out
from synfer_ray.runtime import ray_session
from synfer_ray.storage.locations import filesystem, write_bytes
from synfer_ray.storage.manifest import read_manifest
from synfer_ray.taxonomy.expressions import EXPRESSIONS

if TYPE_CHECKING:
    import ray.data

FILE = "evaluation.json"
Columns = dict[str, np.ndarray]


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Judges the samples of `config.input`, writes `evaluation.json` beside them and prints the figures.

    Raises:
        InputError: the input is no generated dataset, or a judging model is missing.
    """
    with ray_session():
        figures = measure(judged_samples(config))
        if config.reference:
            figures |= compare_with_reference(config)
    fs, root = filesystem(config.input)
    write_bytes(fs, f"{root}/{FILE}", (json.dumps(figures, indent=2) + "\n").encode())
    print("\n".join(f"{name:<32}{_plain(value)}" for name, value in figures.items()))
    return figures


def judged_samples(config: EvaluateConfig) -> Columns:
    """What the judge says of every sample, as columns of arrays."""
    from synfer_ray.stages.judge import Judge

    rows = read_rows(config.input, ["image", "assigned_label", "label", "action_units"])
    return collect(rows, config.pool, Judge, config)


def compare_with_reference(config: EvaluateConfig) -> dict[str, float]:
    """Compares the samples with the real faces of `config.reference`, as sets of images."""
    from synfer_ray.stages.image_features import ImageFeatures, Reconstruction

    generated, real = (
        ImageSet(**collect(read_rows(dataset, ["image"]), config.pool, ImageFeatures, config))
        for dataset in (config.input, config.reference)
    )
    held_out = hold_out(len(generated), len(real))
    decoded = collect(read_rows(config.reference, ["image"], held_out), config.pool, Reconstruction, config)
    return compare(generated, real, held_out, decoded["features"])


def read_rows(dataset: str, columns: list[str], rows: np.ndarray | None = None) -> "ray.data.Dataset":
    """The rows of a dataset in the order of its manifest, all or those at the places `rows`.

    Raises:
        InputError: there are none.
    """
    import ray.data

    shards = [shard.file for shard in read_manifest(dataset).shards if shard.file]
    if not shards:
        raise InputError(f"{dataset} holds no samples")
    fs, root = filesystem(dataset)
    files = [f"{root}/{shard}" for shard in shards]
    if rows is None:
        return ray.data.read_parquet(files, filesystem=fs, columns=columns)
    table = pyarrow.dataset.dataset(files, filesystem=fs, format="parquet").take(rows, columns=columns)
    return ray.data.from_arrow(table)


def collect(rows: "ray.data.Dataset", pool: PoolConfig, stage: type, config: EvaluateConfig) -> Columns:
    """Runs a stage over rows, as columns of arrays in the rows' order."""
    from ray.data import ActorPoolStrategy

    rows.context.execution_options.preserve_order = True
    batches = list(
        rows.map_batches(
            stage,
            fn_constructor_args=(config,),
            compute=ActorPoolStrategy(size=pool.min_actors or 1),
            num_cpus=pool.num_cpus,
            batch_size=32,
        ).iter_batches(batch_size=None)
    )
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def measure(samples: Columns) -> dict[str, Any]:
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
