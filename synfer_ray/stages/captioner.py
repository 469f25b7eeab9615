"""Writes the captions of faces from their label, action units and attributes."""

import hashlib
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from synfer_ray.prompts.caption import phrase_of, write_caption
from synfer_ray.prompts.cues import describe_cues
from synfer_ray.prompts.lint import NEUTRAL_PROMPT
from synfer_ray.stages.face_rows import Row, update_accepted
from synfer_ray.taxonomy.action_units import au_vector

MAX_CUES = 4


@dataclass(frozen=True)
class Captioner:
    """A stage: template captions, each drawn with the run's seed and the row's own id."""

    seed: int

    def __call__(self, table: pa.Table) -> pa.Table:
        """Captions the rows."""
        return update_accepted(table, "caption", self.caption)

    def caption(self, row: Row) -> Row:
        """Returns the caption; a face without label is described by its action units alone."""
        known = described(row)
        attributes, units = known["attributes"], known["action_units"]
        if row["label"] is None:
            phrases = [NEUTRAL_PROMPT, describe_cues(units, MAX_CUES)]
            phrases += [phrase_of(name, value) for name, value in attributes.items()]
            caption = ", ".join(filter(None, phrases))
        else:
            rng = np.random.default_rng([self.seed, number(row["sample_id"])])
            caption = write_caption(row["label"], units, attributes, rng, row["label_probs"])
        return known | {"caption": caption}


def described(row: Row) -> Row:
    """Returns `attributes` and `action_units` [41] of a row, with what no earlier stage filled in."""
    units = row["action_units"]
    return {
        "attributes": row["attributes"] or {},
        "action_units": au_vector({}, fill=np.nan) if units is None else np.array(units, np.float32),
    }


def number(text: str) -> int:
    """Returns a number below 2**64 that stands for the text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
