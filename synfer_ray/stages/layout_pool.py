"""The faces that lend their layout (paper 4.3): latents that a bundle ships, or images of a FEText folder."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from synfer_ray.config import LayoutConfig
from synfer_ray.errors import InputError, choose
from synfer_ray.storage.locations import filesystem
from synfer_ray.storage.manifest import read_manifest

if TYPE_CHECKING:
    from torch import Tensor

    from synfer_ray.diffusion.components import Components

MODES = ("none", "partial_noise", "ddim_inversion")


class LayoutPool(Protocol):
    """Numbered faces."""

    prefix: str
    """What the ids of the pool's faces begin with."""

    def __len__(self) -> int: ...

    def latents(self, numbers: Sequence[int], components: "Components", image_size: int) -> "Tensor":
        """Returns the latents [B, C, h, w] of faces."""
        ...


def open_layouts(config: LayoutConfig, bundle: Path) -> LayoutPool | None:
    """Opens the pool that the settings ask for; None starts from noise.

    Raises:
        InputError: unknown mode, or the pool is missing or empty.
    """
    if choose(config.mode, MODES, "layout mode") == "none":
        return None
    pool = FETextLayouts(config.pool) if config.pool else BundleLayouts(bundle)
    if not len(pool):
        raise InputError(f"layout pool {config.pool or bundle} holds no faces")
    return pool


class BundleLayouts:
    """Latents of synthetic faces: no real identity is carried over."""

    def __init__(self, bundle: Path):
        self.path = bundle / "layouts" / "latents.safetensors"
        self.prefix = f"{bundle.name}/layout"
        if not self.path.is_file():
            raise InputError(f"missing model file: {self.path}; use layout.mode=none or layout.pool=FETEXT")

    def __len__(self) -> int:
        from safetensors import safe_open

        with safe_open(self.path, framework="numpy") as file:
            return file.get_slice("latents").get_shape()[0]

    def latents(self, numbers: Sequence[int], components: "Components", image_size: int) -> "Tensor":
        """Returns the latents [B, C, h, w] of faces.

        Raises:
            InputError: they are of another size.
        """
        from safetensors.torch import load_file

        latents = load_file(self.path)["latents"]
        if latents.shape[1:] != components.latent_shape(image_size):
            raise InputError(f"{self.path} holds latents of another size than image_size={image_size}")
        return latents[list(numbers)].to(components.device, components.dtype)


class FETextLayouts:
    """Images of a FEText folder, encoded when they are drawn."""

    def __init__(self, folder: str):
        self.fs, self.root = filesystem(folder)
        self.prefix = f"{Path(self.root).name}/row"
        shards = read_manifest(folder).shards
        self.files = [shard.file for shard in shards]
        self.ends = list(accumulate(shard.rows for shard in shards))

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def latents(self, numbers: Sequence[int], components: "Components", image_size: int) -> "Tensor":
        """Returns the latents [B, C, h, w] of faces."""
        import torch

        from synfer_ray.diffusion.components import encode_image
        from synfer_ray.faces.images import decode_image, resize_square

        faces = [resize_square(decode_image(self._image(number)), image_size) for number in numbers]
        pixels = torch.from_numpy(np.stack([np.asarray(face) for face in faces]))
        return encode_image(components, pixels.permute(0, 3, 1, 2) / 127.5 - 1)

    def _image(self, number: int) -> bytes:
        place = bisect_right(self.ends, number)
        row = number - (self.ends[place - 1] if place else 0)
        path = f"{self.root}/{self.files[place]}"
        try:
            with self.fs.open(path) as stream:
                file = pq.ParquetFile(stream)
                for group in range(file.num_row_groups):
                    if row < (rows := file.metadata.row_group(group).num_rows):
                        return file.read_row_group(group, columns=["image"])["image"][row].as_py()["bytes"]
                    row -= rows
        except (pa.ArrowException, OSError) as error:
            raise InputError(f"cannot read FEText shard {path}: {error}") from error
        raise InputError(f"FEText shard {path} has fewer rows than its manifest says")
