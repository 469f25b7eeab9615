import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from synfer_ray.config import LayoutConfig
from synfer_ray.diffusion.components import encode_image
from synfer_ray.errors import InputError
from synfer_ray.faces.images import decode_image
from synfer_ray.stages.layout_pool import open_layouts
from synfer_ray.storage.manifest import claim_output, write_manifest
from tests.fake_dataset import fill, sample
from tests.tiny import tiny_components
from tests.tiny_bundle import save_tiny_bundle


def test_bundle_latents_are_found_by_number(tmp_path):
    bundle = save_tiny_bundle(tmp_path / "tiny")
    pool = open_layouts(LayoutConfig(mode="partial_noise"), bundle)
    expected = load_file(bundle / "layouts" / "latents.safetensors")["latents"].float()
    assert len(pool) == 5 and pool.prefix == "tiny/layout"
    assert torch.equal(pool.latents([3, 0, 3], tiny_components(), 32), expected[[3, 0, 3]])
    with pytest.raises(InputError, match="image_size=64"):
        pool.latents([0], tiny_components(), 64)


def test_fetext_images_are_found_by_number_across_shards(tmp_path):
    folder = tmp_path / "faces"
    claim_output(folder, {"made": "up"}, planned_rows=250)
    fill(folder, shards=2, rows=125, rejected_every=1000, size=32)
    write_manifest(folder)
    pool = open_layouts(LayoutConfig(mode="ddim_inversion", pool=str(folder)), tmp_path)
    components = tiny_components()
    numbers = [0, 101, 124, 125, 249]
    faces = [np.asarray(decode_image(sample(number, 32)["image"]["bytes"])) for number in numbers]
    pixels = torch.from_numpy(np.stack(faces)).permute(0, 3, 1, 2) / 127.5 - 1
    assert len(pool) == 250
    assert torch.equal(pool.latents(numbers, components, 32), encode_image(components, pixels))


@pytest.mark.parametrize("kept", [0, 0.5, 0.99])
def test_a_corrupt_fetext_shard_is_named(tmp_path, kept):
    claim_output(tmp_path / "faces", {"made": "up"}, planned_rows=20)
    fill(tmp_path / "faces", shards=1, rows=20, rejected_every=1000, size=32)
    write_manifest(tmp_path / "faces")
    pool = open_layouts(LayoutConfig(mode="partial_noise", pool=str(tmp_path / "faces")), tmp_path)
    (shard,) = (tmp_path / "faces" / "data").iterdir()
    shard.write_bytes(shard.read_bytes()[: int(kept * shard.stat().st_size)])
    with pytest.raises(InputError, match=r"cannot read FEText shard .*train-00000000-00000019"):
        pool.latents([3], tiny_components(), 32)


def test_no_pool_is_needed_without_layouts_and_a_missing_one_is_named(tmp_path):
    assert open_layouts(LayoutConfig(), tmp_path) is None
    with pytest.raises(InputError, match=r"latents\.safetensors.*layout\.mode=none"):
        open_layouts(LayoutConfig(mode="partial_noise"), tmp_path)
    with pytest.raises(InputError, match="partial_noise"):
        open_layouts(LayoutConfig(mode="partial"), tmp_path)
