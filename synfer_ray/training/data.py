"""FEText as training rows: Ray Data decodes, encodes and tokenizes; Ray Train workers gather plain arrays."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset

from synfer_ray.config import TrainingConfig
from synfer_ray.faces.images import decode_image
from synfer_ray.storage.bundle import bundle_image_size
from synfer_ray.taxonomy.expressions import EXPRESSIONS

if TYPE_CHECKING:
    import ray.data


def read_faces(fetext: str, columns: Sequence[str]) -> "ray.data.Dataset":
    """Reads a FEText folder as a Ray dataset with `sample_id` and the wanted `columns`.

    `image` becomes uint8 [H,W,3]; `label_probs` falls back to the label where no votes are known.
    """
    import ray.data

    stored = {"sample_id", *columns} | ({"label"} if "label_probs" in columns else set())
    dataset = ray.data.read_parquet(f"{fetext.rstrip('/')}/data", columns=sorted(stored))
    return dataset.map_batches(partial(decode_rows, columns=["sample_id", *columns]), batch_size=256)


def decode_rows(batch: dict[str, np.ndarray], columns: Sequence[str]) -> dict[str, np.ndarray]:
    """Turns stored FEText columns into arrays."""
    decoded = dict(batch)
    if "image" in batch:
        decoded["image"] = np.stack([np.asarray(decode_image(image["bytes"])) for image in batch["image"]])
    if "action_units" in batch:
        decoded["action_units"] = np.stack(list(batch["action_units"])).astype(np.float32)
    if "readings" in batch:
        decoded["readings"] = np.stack(list(batch["readings"])).astype(np.float32)
    if "label_probs" in columns:
        decoded["label_probs"] = label_distributions(batch)
    return {column: decoded[column] for column in columns}


def label_distributions(columns: Any) -> np.ndarray:
    """The annotators' votes as a distribution [N,7]; the label alone where no votes are known."""
    one_hot = np.eye(len(EXPRESSIONS), dtype=np.float32)
    rows = zip(np.asarray(columns["label_probs"]), np.asarray(columns["label"]))
    return np.stack(
        [one_hot[label] if probs is None else np.asarray(probs, np.float32) for probs, label in rows]
    )


def training_image_size(config: TrainingConfig) -> int:
    """The side of the faces that the networks learn from: as set, or what the bundle's U-Net is made for."""
    bundle = Path(config.bundle)
    made_for = bundle_image_size(bundle) if (bundle / "unet").is_dir() else config.architecture.image_size
    return config.image_size or made_for


def read_columns(fetext: str, columns: Sequence[str]) -> pa.Table:
    """Reads small columns of a FEText folder at once, without Ray."""
    return pyarrow.dataset.dataset(f"{fetext.rstrip('/')}/data", format="parquet").to_table(list(columns))


def mirror_text(caption: str) -> str:
    """Exchanges the words `left` and `right`."""
    swap = {"left": "right", "right": "left"}
    return re.sub(r"\b(left|right)\b", lambda word: swap[word[0]], caption)


def tokenize(tokenizer, texts: Iterable[str]) -> np.ndarray:
    """Token ids, padded or cut to the tokenizer's length, int64 [B,T]."""
    encoded = tokenizer(
        list(texts),
        padding="max_length",
        truncation=True,
        max_length=tokenizer.model_max_length,
        return_tensors="np",
    )
    return encoded.input_ids.astype(np.int64)


def silence_unclear(
    batch: Mapping[str, np.ndarray], clear_share: float, empty_ids: np.ndarray
) -> dict[str, np.ndarray]:
    """Puts the empty caption in the place of one that names an expression on which annotators disagree.

    Args:
        batch: `label_probs` [N,7], and the captions `input_ids` and `uncued_ids` [N,T] where they are wanted.
        clear_share: the share of the votes that makes an expression clear.
        empty_ids: tokens of the empty caption [T].
    """
    is_clear = batch["label_probs"].max(axis=1, keepdims=True) >= clear_share
    captions = batch.keys() & {"input_ids", "uncued_ids"}
    return dict(batch) | {name: np.where(is_clear, batch[name], empty_ids) for name in captions}


def repeat_rare(
    batch: Mapping[str, np.ndarray], share: np.ndarray, most: int, power: float, clear_share: float = 0.0
) -> dict[str, np.ndarray]:
    """Repeats rows of rare expressions, by a power of how much rarer they are than the most frequent one.

    Takes `label_probs` [N,7] and any other columns, and returns the others.

    Args:
        share: of each expression among all rows, [7].
        most: so often a row comes at most; 1 leaves all as they are.
        power: 0.5 for the root; 1 would make all expressions as frequent.
        clear_share: rows whose foremost expression has less of the votes come once.
    """
    times = ((share.max() / share.clip(1e-9)) ** power).clip(1, most).round().astype(int)
    columns = dict(batch)
    votes = columns.pop("label_probs")
    counts = np.where(votes.max(axis=1) >= clear_share, times[votes.argmax(axis=1)], 1)
    return {name: np.repeat(column, counts, axis=0) for name, column in columns.items()}


def gather(batches: Iterable[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Joins batches into arrays ordered by `sample_id`, whatever order they arrived in."""
    parts = list(batches)
    arrays = {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}
    order = np.argsort(arrays.pop("sample_id"))
    return {key: value[order] for key, value in arrays.items()}
