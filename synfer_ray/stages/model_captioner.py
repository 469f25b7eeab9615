"""A vision-language model captions the faces (paper 4.2.1); what it cannot caption is a counted reject."""

import numpy as np
import pyarrow as pa
from pydantic import SecretStr

from synfer_ray.config import FETextConfig
from synfer_ray.language.writer import SEEDS, Request, Writer
from synfer_ray.prompts.instructions import caption_instruction
from synfer_ray.stages.attempts import Attempts
from synfer_ray.stages.captioner import described, number
from synfer_ray.stages.face_rows import Row, face_rows, face_table
from synfer_ray.stages.model_stage import model_stage
from synfer_ray.stages.sample_rows import accepted, rejection

CAPTION = "caption"


@model_stage
class ModelCaptioner:
    """A Ray actor: fills `caption` and `caption_writer`, the model's name, of the rows that are not rejected.

    Args:
        model: the fingerprint of the model and its instruction.
        key: of the endpoint.

    Raises:
        InputError: the model does not load.
    """

    def __init__(self, config: FETextConfig, model: str, key: SecretStr) -> None:
        self.config = config
        self.writer = Writer(config.captioner, model, key, config.output, sees=True)
        self.attempts = Attempts(config.output, CAPTION)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Captions the faces of one range."""
        rows = face_rows(table)
        for group, _ in self.attempts.batches(accepted(rows), self.config.shard_rows):
            self.caption(group)
        return face_table(rows)

    def caption(self, rows: list[Row]) -> None:
        """Asks for the captions of the rows."""
        for row in rows:
            row |= described(row)
        texts = self.writer.write([self.request(row) for row in rows])
        for row, text in zip(rows, texts):
            if text.fault:
                row |= rejection(CAPTION, text.fault, text.detail)
            else:
                row |= {"caption": text.text, "caption_writer": self.config.captioner.writer}

    def request(self, row: Row) -> Request:
        """Returns what is asked for a row."""
        units = np.asarray(row["action_units"], np.float32)
        instruction = caption_instruction(
            row["label"], units, row["attributes"], self.config.captioner.max_words
        )
        seed = (self.config.seed + number(row["sample_id"])) % SEEDS
        return Request(row["index"], instruction, row["label"], seed, row["image"])
