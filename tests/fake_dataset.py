"""A small synthetic dataset in our own schema: drawn faces, made-up votes, no model."""

import io
import json

import numpy as np
import pyarrow as pa
from PIL import Image, ImageDraw

from synfer_ray.storage.schema import reject_schema, sample_schema
from synfer_ray.storage.shards import commit_shard
from synfer_ray.taxonomy.action_units import ACTION_UNITS, au_vector
from synfer_ray.taxonomy.expressions import EXPRESSIONS

VOTERS = ("residual", "separable")
REASONS = ("low_confidence", "no_face", "not_finite")


def face(index: int, size: int = 64) -> Image.Image:
    """Draws a face whose colours and mouth follow from the index."""
    rng = np.random.default_rng(index)
    image = Image.new("RGB", (size, size), tuple(int(v) for v in rng.integers(60, 160, 3)))
    draw = ImageDraw.Draw(image)
    unit = size / 64
    skin = np.array([224, 172, 130]) * rng.uniform(0.5, 1.1)
    draw.ellipse(
        [12 * unit, 6 * unit, 52 * unit, 60 * unit],
        tuple(int(v) for v in skin.clip(0, 255)),
        outline=(60, 40, 30),
    )
    for x in (24, 40):
        draw.ellipse([(x - 3) * unit, 25 * unit, (x + 3) * unit, 30 * unit], (30, 30, 40))
    start, end = ((20, 160), (200, 340), (0, 360))[index % 3]
    draw.arc([23 * unit, 38 * unit, 41 * unit, 52 * unit], start, end, (120, 30, 40), max(1, round(2 * unit)))
    return image


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def sample(index: int, size: int = 64) -> dict:
    """A row of `sample_schema(VOTERS)`; every ninth has another label than was asked for."""
    rng = np.random.default_rng([7, index])
    assigned = index % len(EXPRESSIONS)
    label = (assigned + 3) % len(EXPRESSIONS) if index % 9 == 8 else assigned
    probs = rng.dirichlet(np.ones(len(EXPRESSIONS)) + 8 * np.eye(len(EXPRESSIONS))[label])
    units = au_vector({"AU01": 0.3, ACTION_UNITS[label + 4]: 0.5 + 0.5 * float(rng.random())})
    return {
        "sample_id": f"fake-{index:08d}",
        "image": {"bytes": png(face(index, size)), "path": None},
        "label": label,
        "assigned_label": assigned,
        "compound": None,
        "label_probs": probs.tolist(),
        **{f"voter_{name}": np.roll(probs, shift).tolist() for shift, name in enumerate(VOTERS)},
        "agreement": 0.5,
        "decision": "agree" if label == assigned else "relabel",
        "action_units": units.tolist(),
        "prompt": f"a photo of a {EXPRESSIONS[assigned]} woman in her thirties with curly hair, by a window",
        "attributes": json.dumps({"gender": "woman", "age": "thirties"}),
        "seed": 1000 + index,
        "index": index,
        "layout_source": "bundle:0042",
        "guidance_skipped": 0,
        "wholeness": 0.75,
        "readability": 0.5,
        "model_fingerprint": "0123456789abcdef",
        "adapter_fingerprint": "fedcba9876543210",
    }


def reject(index: int) -> dict:
    """A row of `reject_schema()`."""
    return {
        "sample_id": f"fake-{index:08d}",
        "index": index,
        "stage": "calibrate",
        "reason": REASONS[index % 3],
        "detail": "best expression 0.31 < 0.6",
        "row": json.dumps({"index": index}),
        "image": {"bytes": png(face(index)), "path": None},
        "label_probs": None,
    }


def tables(indices, rejected=(), size: int = 64) -> tuple[pa.Table, pa.Table]:
    """The data and reject tables of a shard."""
    written = [sample(index, size) for index in indices if index not in rejected]
    return (
        pa.Table.from_pylist(written, schema=sample_schema(VOTERS)),
        pa.Table.from_pylist([reject(index) for index in rejected], schema=reject_schema()),
    )


def fill(output, shards: int = 2, rows: int = 10, rejected_every: int = 5, size: int = 64) -> None:
    """Commits shards of consecutive plan rows, each n-th of them rejected."""
    for first in range(0, shards * rows, rows):
        indices = range(first, first + rows)
        rejected = [index for index in indices if index % rejected_every == rejected_every - 1]
        commit_shard(output, first, first + rows - 1, *tables(indices, rejected, size))
