"""A bounded look into a dataset of any size: rows from the first row group of a few evenly spaced shards."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from synfer_ray.storage.locations import Location, filesystem
from synfer_ray.storage.schema import VOTER
from synfer_ray.storage.shards import Commit
from synfer_ray.taxonomy.action_units import ACTION_UNITS, au_dict
from synfer_ray.taxonomy.expressions import EXPRESSIONS

UNLABELLED = "unlabelled"
MAX_SHARDS = 24


@dataclass(frozen=True)
class Sample:
    """A row of FEText or of generated samples as a person reads it: names in place of numbers."""

    sample_id: str
    image: bytes
    text: str
    """The prompt, or the caption."""
    label: str
    assigned: str
    compound: str | None
    """The compound expression that was asked for."""
    confidence: float | None
    """The probability of `label`."""
    votes: dict[str, tuple[str, float]]
    """Voter -> its first choice and the probability of it."""
    action_units: np.ndarray
    """float32 [41], NaN = unknown."""

    @property
    def changed(self) -> bool:
        """Whether calibration replaced the expression that was asked for."""
        return self.label != self.assigned

    @property
    def strongest(self) -> list[tuple[str, float]]:
        """The action units above 0.05, strongest first."""
        return sorted(au_dict(self.action_units, 0.05).items(), key=lambda unit: -unit[1])


@dataclass
class Survey:
    """What a bounded look found."""

    seen: int = 0
    kept: dict[str, list[Sample]] = field(default_factory=dict)
    changed: list[Sample] = field(default_factory=list)
    au_sum: np.ndarray = field(default_factory=lambda: np.zeros((len(EXPRESSIONS), len(ACTION_UNITS))))
    au_known: np.ndarray = field(default_factory=lambda: np.zeros((len(EXPRESSIONS), len(ACTION_UNITS))))

    def add(self, sample: Sample, per_expression: int, most_changed: int) -> None:
        """Counts a sample and keeps it if its expression still has room."""
        self.seen += 1
        kept = self.kept.setdefault(sample.compound or sample.label, [])
        if len(kept) < per_expression:
            kept.append(sample)
        if sample.changed and len(self.changed) < most_changed:
            self.changed.append(sample)
        if sample.assigned in EXPRESSIONS:
            row = EXPRESSIONS.index(sample.assigned)
            self.au_sum[row] += np.nan_to_num(sample.action_units)
            self.au_known[row] += ~np.isnan(sample.action_units)

    @property
    def groups(self) -> dict[str, list[Sample]]:
        """Samples of each calibrated expression, then of each compound one, then those without a label."""
        order = [*EXPRESSIONS, *sorted(self.kept.keys() - {*EXPRESSIONS, UNLABELLED}), UNLABELLED]
        return {name: self.kept[name] for name in order if name in self.kept}

    @property
    def mean_action_units(self) -> np.ndarray:
        """Mean known intensity [7, 41] by assigned expression; 0 where nothing is known."""
        return self.au_sum / np.maximum(self.au_known, 1)


def survey(output: Location, commits: Sequence[Commit], per_expression: int, most_changed: int = 0) -> Survey:
    """Looks at up to 24 shards; keeps a few samples of each expression and of changed labels."""
    found = Survey()
    for file in spread([commit.data_file for commit in commits if commit.data_file]):
        for row in first_rows(output, file):
            found.add(_sample(row), per_expression, most_changed)
    return found


def spread(files: Sequence[str]) -> list[str]:
    """Returns up to 24 evenly spaced files, the first and the last among them."""
    places = np.linspace(0, len(files) - 1, min(len(files), MAX_SHARDS)).round().astype(int)
    return [files[place] for place in places]


def first_rows(output: Location, file: str) -> Iterator[dict[str, Any]]:
    """Yields the rows of the first row group of a Parquet file."""
    fs, root = filesystem(output)
    with fs.open(f"{root}/{file}", "rb") as stream:
        for batch in pq.ParquetFile(stream).iter_batches(batch_size=32, row_groups=[0]):
            yield from batch.to_pylist()


def _sample(row: dict[str, Any]) -> Sample:
    label = row["label"]
    probs = row["label_probs"]
    return Sample(
        sample_id=row["sample_id"],
        image=row["image"]["bytes"],
        text=row["prompt"] if "prompt" in row else row["caption"],
        label=_expression(label),
        assigned=_expression(row.get("assigned_label", label)),
        compound=row.get("compound"),
        confidence=probs[label] if probs and label is not None else None,
        votes={
            name.removeprefix(VOTER): (EXPRESSIONS[int(np.argmax(vote))], float(max(vote)))
            for name, vote in row.items()
            if name.startswith(VOTER) and vote
        },
        action_units=np.array(row["action_units"], np.float32),
    )


def _expression(label: int | None) -> str:
    return UNLABELLED if label is None else EXPRESSIONS[label]
