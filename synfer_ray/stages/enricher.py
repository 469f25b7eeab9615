"""A language model words the planned prompts (paper 4.1); the grammar's prompt stays where it cannot."""

import json

import numpy as np
import pyarrow as pa
from pydantic import SecretStr

from synfer_ray.config import GenerateConfig
from synfer_ray.language.writer import SEEDS, Request, Writer
from synfer_ray.prompts.instructions import prompt_instruction
from synfer_ray.stages.attempts import Attempts
from synfer_ray.stages.model_stage import model_stage
from synfer_ray.stages.sample_rows import Row, sample_rows
from synfer_ray.taxonomy.expressions import EXPRESSIONS

ENRICH = "enrich"


@model_stage
class Enricher:
    """A Ray actor: replaces `prompt` and fills `prompt_writer`, the model's name or `template: <fault>`.

    Args:
        model: the fingerprint of the model and its instruction.
        key: of the endpoint.

    Raises:
        InputError: the model does not load.
    """

    def __init__(self, config: GenerateConfig, model: str, key: SecretStr) -> None:
        self.config = config
        self.writer = Writer(config.enricher, model, key, config.output, sees=False)
        self.attempts = Attempts(config.output, ENRICH)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Words the prompts of one shard."""
        rows = table.to_pylist()
        for group, _ in self.attempts.batches(rows, self.config.shard_rows):
            self.enrich(group)
        for row in rows:
            if row["reason"] is not None:  # it killed the model, which is no reason against the image
                row |= {"prompt_writer": f"template: {row['reason']}"}
                row |= {"stage": None, "reason": None, "detail": None}
        return sample_rows(rows, self.config.voters)

    def enrich(self, rows: list[Row]) -> None:
        """Asks for the prompts of the rows."""
        texts = self.writer.write([self.request(row) for row in rows])
        for row, text in zip(rows, texts):
            if text.fault:
                row["prompt_writer"] = f"template: {text.fault}"
            else:
                row |= {"prompt": text.text, "prompt_writer": self.config.enricher.writer}

    def request(self, row: Row) -> Request:
        """Returns what is asked for a row: all of it follows from the plan."""
        expression = row["compound"] or EXPRESSIONS[row["assigned_label"]]
        units, attributes = np.array(row["action_units"], np.float32), json.loads(row["attributes"])
        if not self.config.describe_action_units:
            units[:] = np.nan
        instruction = prompt_instruction(expression, units, attributes, self.config.enricher.max_words)
        return Request(row["index"], instruction, expression, row["seed"] % SEEDS)
