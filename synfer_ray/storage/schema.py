"""The columns of our datasets as Arrow schemas, with the metadata that `datasets.load_dataset` decodes."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from synfer_ray.taxonomy.expressions import EXPRESSIONS

Column = tuple[pa.DataType, dict[str, Any]]
"""An Arrow type and the Hugging Face feature that describes it."""

STRING: Column = (pa.string(), {"_type": "Value", "dtype": "string"})
INT32: Column = (pa.int32(), {"_type": "Value", "dtype": "int32"})
INT64: Column = (pa.int64(), {"_type": "Value", "dtype": "int64"})
FLOAT: Column = (pa.float32(), {"_type": "Value", "dtype": "float32"})
FLOATS: Column = (pa.list_(pa.float32()), {"_type": "List", "feature": FLOAT[1]})
IMAGE: Column = (pa.struct([("bytes", pa.binary()), ("path", pa.string())]), {"_type": "Image"})
EXPRESSION: Column = (pa.int64(), {"_type": "ClassLabel", "names": list(EXPRESSIONS)})

VOTER = "voter_"


def fetext_schema(captioned: bool = False) -> pa.Schema:
    """FEText (paper section 3.2): a face image, its caption, its action units and, if known, its expression.

    `action_units` holds 41 intensities in [0, 1] in ACTION_UNITS order, NaN = unknown; `attributes` is JSON.
    With `captioned`, by a model and not the template grammar, `caption_writer` names the model.
    """
    return _schema(
        {
            "sample_id": STRING,
            "image": IMAGE,
            "caption": STRING,
            **({"caption_writer": STRING} if captioned else {}),
            "action_units": FLOATS,
            "label": EXPRESSION,
            "label_probs": FLOATS,
            "attributes": STRING,
            "source": STRING,
            "license": STRING,
        }
    )


def sample_schema(voters: Sequence[str], enriched: bool = False) -> pa.Schema:
    """A generated sample: `label` is the calibrated expression, `assigned_label` the one asked for.

    Every voter adds a column `voter_<name>` with its probabilities in EXPRESSIONS order; `agreement` is the
    share of voters whose first choice is `label`; `seed` is the seed of this row; `attributes` is JSON;
    `wholeness` is how whole the face looks, 0 to 1, and `readability` the share of viewers who would read the
    expression asked for, both by a network; null where nothing tells.
    With `enriched`, `prompt_writer` names the language model that worded the prompt, or says `template: ` and
    why it did not.
    """
    return _schema(
        {
            "sample_id": STRING,
            "image": IMAGE,
            "label": EXPRESSION,
            "assigned_label": EXPRESSION,
            "compound": STRING,
            "label_probs": FLOATS,
            **{f"{VOTER}{name}": FLOATS for name in voters},
            "agreement": FLOAT,
            "decision": STRING,
            "action_units": FLOATS,
            "prompt": STRING,
            **({"prompt_writer": STRING} if enriched else {}),
            "attributes": STRING,
            "seed": INT64,
            "index": INT64,
            "layout_source": STRING,
            "guidance_skipped": INT32,
            "wholeness": FLOAT,
            "readability": FLOAT,
            "model_fingerprint": STRING,
            "adapter_fingerprint": STRING,
        }
    )


def reject_schema() -> pa.Schema:
    """A planned row that became no sample: which stage refused it and why.

    `row` is its plan as JSON; `image`, where there is one, can be decoded.
    """
    return _schema(
        {
            "sample_id": STRING,
            "index": INT64,
            "stage": STRING,
            "reason": STRING,
            "detail": STRING,
            "row": STRING,
            "image": IMAGE,
            "label_probs": FLOATS,
        }
    )


def _schema(columns: Mapping[str, Column]) -> pa.Schema:
    features = {name: feature for name, (_, feature) in columns.items()}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    return pa.schema([(name, arrow) for name, (arrow, _) in columns.items()], metadata)
