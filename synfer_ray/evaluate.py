"""How good a generated dataset is, in the eyes of models that had no part in making it (paper 7)."""

import json
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from synfer_ray.config import EvaluateConfig
from synfer_ray.errors import InputError
from synfer_ray.evaluation.action_units import macro_f1
from synfer_ray.evaluation.classification import accuracy, class_recalls, confusion_matrix
from synfer_ray.evaluation.image_sets import ImageSet, compare, hold_out
from synfer_ray.runtime import TABLES, ray_session, share_cpus
from synfer_ray.storage.locations import filesystem, write_bytes
from synfer_ray.storage.manifest import read_manifest
from synfer_ray.taxonomy.expressions import EXPRESSIONS

FILE = "evaluation.json"
Columns = dict[str, np.ndarray]


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Judges the samples of `config.input`, writes `evaluation.json` beside them and prints the figures.

    Raises:
        InputError: the input is no generated dataset, or a judging model is missing.
    """
    with ray_session():
        samples = judged_samples(config)
        figures = measure_labels(samples)
        if config.landmarker_model:
            figures |= measure_faces(samples)
        if config.reference:
            figures |= compare_with_reference(config)
    fs, root = filesystem(config.input)
    write_bytes(fs, f"{root}/{FILE}", (json.dumps(figures, indent=2) + "\n").encode())
    print("\n".join(f"{name:<36}{_plain(value)}" for name, value in figures.items()))
    return figures


def judged_samples(config: EvaluateConfig) -> Columns:
    """What the judge says of every sample, as columns of arrays."""
    from synfer_ray.stages.judge import Judge

    columns = ["image", "assigned_label", "label", "action_units"]
    return collect(config, Judge, config.input, columns)


def compare_with_reference(config: EvaluateConfig) -> dict[str, float]:
    """Compares the samples with the real faces of `config.reference`, as sets of images."""
    from synfer_ray.stages.image_features import ImageFeatures, Reconstruction

    generated, real = (
        ImageSet(**collect(config, ImageFeatures, dataset, ["image", label]))
        for dataset, label in ((config.input, "assigned_label"), (config.reference, "label"))
    )
    held_out = hold_out(generated.labels, real.labels)
    drawn = np.unique(np.concatenate(held_out))
    reconstructed = np.full_like(real.features, np.nan)
    reconstructed[drawn] = collect(config, Reconstruction, config.reference, ["image"], drawn)["features"]
    return compare(generated, real, held_out, reconstructed)


def collect(
    config: EvaluateConfig, stage: type, dataset: str, columns: list[str], rows: np.ndarray | None = None
) -> Columns:
    """Runs a stage over a dataset: all rows in the order of the manifest, or those at the places `rows`.

    Raises:
        InputError: there are none.
    """
    import ray
    from ray.data import ActorPoolStrategy

    shards = [shard.file for shard in read_manifest(dataset).shards if shard.file]
    if not shards:
        raise InputError(f"{dataset} holds no samples")
    resources = ray.cluster_resources()
    light, (pool,) = share_cpus([config.pool], resources["CPU"], resources.get("GPU", 0), len(shards))
    if rows is None:
        names = ray.data.from_arrow([pa.table({"file": [name]}) for name in shards])
        found = names.map_batches(
            partial(read_shard, dataset=dataset, columns=columns), num_cpus=light, **TABLES
        )
    else:
        fs, root = filesystem(dataset)
        files = pyarrow.dataset.dataset([f"{root}/{name}" for name in shards], filesystem=fs)
        table = files.take(rows, columns=columns)
        found = ray.data.from_arrow([table.slice(start, 256) for start in range(0, len(table), 256)])
    found.context.execution_options.preserve_order = True
    actors = ActorPoolStrategy(size=pool.min_actors)
    results = found.map_batches(
        stage, fn_constructor_args=(config,), compute=actors, num_cpus=pool.num_cpus, batch_size=32
    )
    batches = list(results.iter_batches(batch_size=None))
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def read_shard(name: pa.Table, dataset: str, columns: list[str]) -> pa.Table:
    """Reads the columns of the shard that a table of one cell names."""
    fs, root = filesystem(dataset)
    return pq.read_table(f"{root}/{name['file'][0]}", columns=columns, filesystem=fs)


def measure_labels(samples: Columns) -> dict[str, Any]:
    """FER accuracy against both labels, and for each expression."""
    assigned = confusion_matrix(samples["assigned_label"], samples["judged"], len(EXPRESSIONS))
    calibrated = confusion_matrix(samples["label"], samples["judged"], len(EXPRESSIONS))
    recalls = zip(EXPRESSIONS, class_recalls(assigned).tolist())
    return {
        "samples": len(samples["judged"]),
        "fer_accuracy": accuracy(assigned),
        "fer_accuracy_calibrated": accuracy(calibrated),
        **{f"fer_accuracy_{expression}": recall for expression, recall in recalls},
    }


def measure_faces(samples: Columns) -> dict[str, float]:
    """Macro F1 of the action units, and the share of samples with a face, as the landmarker sees them."""
    return {
        "au_macro_f1": macro_f1(samples["requested"], samples["found"]),
        "faces_found": float((~np.isnan(samples["found"]).all(axis=1)).mean()),
    }


def _plain(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"
