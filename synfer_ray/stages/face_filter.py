"""Turns away images that cannot be used: damaged, small, blurred, or there already."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

import pyarrow as pa

from synfer_ray.faces.duplicates import Duplicate, FaceHash
from synfer_ray.faces.images import decode_image, image_hash, perceptual_hash, sharpness
from synfer_ray.stages.face_rows import Row, face_rows, update_accepted


@dataclass(frozen=True)
class FaceFilter:
    """A stage: rejects what fails to decode, is smaller than `min_side`, blurred, or in `duplicates`."""

    min_side: int = 1
    min_sharpness: float = 0.0
    duplicates: Mapping[int, Duplicate] = field(default_factory=dict)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Filters the rows."""
        return update_accepted(table, "filter", self.check)

    def check(self, row: Row) -> Row:
        """Returns the reason and detail of a row to reject, or nothing.

        Raises:
            BadImage: the bytes are no usable image.
        """
        if duplicate := self.duplicates.get(row["index"]):
            return {"reason": duplicate.reason, "detail": f"of row {duplicate.kept}"}
        image = decode_image(row["image"])
        if min(image.size) < self.min_side:
            return {
                "reason": "too_small",
                "detail": f"{image.width}x{image.height}, at least {self.min_side}",
            }
        if (measured := sharpness(image)) < self.min_sharpness:
            return {"reason": "blurred", "detail": f"sharpness {measured:.3f}, at least {self.min_sharpness}"}
        return {}


def hash_faces(table: pa.Table) -> pa.Table:
    """Returns the `FaceHash` of every row that is not rejected."""
    hashes = []
    for row in face_rows(table):
        if row["reason"] is None:
            image = decode_image(row["image"])
            hashes.append(asdict(FaceHash(row["index"], image_hash(image), perceptual_hash(image))))
    return pa.Table.from_pylist(
        hashes, schema=pa.schema({"index": pa.int64(), "pixels": pa.string(), "perceptual": pa.uint64()})
    )
