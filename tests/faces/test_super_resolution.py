import importlib
import importlib.util
import sys
import types

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from synfer_ray.config import FETextConfig
from synfer_ray.errors import InputError
from synfer_ray.faces.images import decode_image
from synfer_ray.faces.super_resolution import SuperResolution
from synfer_ray.stages.face_aligner import FaceAligner
from synfer_ray.stages.face_rows import face_rows, face_table
from tests.faces.pictures import picture, png

WIDTH, GROWTH, BLOCKS = 8, 32, 2
LAYERS = {
    "conv_first": (WIDTH, 3),
    **{
        f"body.{block}.rdb{dense}.conv{layer}": (
            GROWTH if layer < 5 else WIDTH,
            WIDTH + (layer - 1) * GROWTH,
        )
        for block in range(BLOCKS)
        for dense in (1, 2, 3)
        for layer in (1, 2, 3, 4, 5)
    },
    **{name: (WIDTH, WIDTH) for name in ("conv_body", "conv_up1", "conv_up2", "conv_hr")},
    "conv_last": (3, WIDTH),
}
"""The layout of RealESRGAN_x4plus, with fewer channels and blocks."""


@pytest.fixture(autouse=True)
def spandrel(monkeypatch):
    """spandrel; where no torchvision is, the three names that it imports from there stand in unused."""
    if importlib.util.find_spec("spandrel") is None:
        pytest.skip("needs spandrel")
    if importlib.util.find_spec("torchvision") is None:
        functional = types.ModuleType("torchvision.transforms.functional")
        functional.InterpolationMode = functional.rotate = functional.normalize = None
        for name in ("torchvision", "torchvision.transforms"):
            monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
        monkeypatch.setitem(sys.modules, functional.__name__, functional)
    return importlib.import_module("spandrel")


@pytest.fixture
def weights():
    generator = torch.Generator().manual_seed(0)
    found = {}
    for name, (outputs, inputs) in LAYERS.items():
        found[f"{name}.weight"] = torch.randn(outputs, inputs, 3, 3, generator=generator) / (3 * inputs**0.5)
        found[f"{name}.bias"] = torch.randn(outputs, generator=generator) * 0.1
    found["conv_last.bias"] += 0.5
    return found


def esrgan(w, image):
    """RRDBNet by its paper (Wang et al. 2018): each `conv_up` doubles the size."""

    def conv(name, x):
        return F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], padding=1)

    def act(x):
        return F.leaky_relu(x, 0.2)

    first = x = conv("conv_first", image)
    for block in range(BLOCKS):
        entry = x
        for dense in (1, 2, 3):
            seen = [x]
            for layer in (1, 2, 3, 4):
                seen.append(act(conv(f"body.{block}.rdb{dense}.conv{layer}", torch.cat(seen, 1))))
            x = x + 0.2 * conv(f"body.{block}.rdb{dense}.conv5", torch.cat(seen, 1))
        x = entry + 0.2 * x
    x = first + conv("conv_body", x)
    for name in [name for name in ("conv_up1", "conv_up2") if f"{name}.weight" in w]:
        x = act(conv(name, F.interpolate(x, scale_factor=2)))
    return conv("conv_last", act(conv("conv_hr", x)))


@pytest.mark.parametrize("wrap", ["params_ema", "params", None])
def test_an_esrgan_checkpoint_enlarges_four_times(tmp_path, weights, wrap):
    path = tmp_path / "esrgan.pth"
    torch.save({wrap: weights} if wrap else weights, path)
    image = picture(0, side=12)
    enlarged = SuperResolution(str(path))(image)
    pixels = torch.tensor(np.asarray(image)).permute(2, 0, 1)[None] / 255
    expected = esrgan(weights, pixels)[0].clamp(0, 1).permute(1, 2, 0).numpy() * 255
    assert enlarged.size == (48, 48) and expected.std() > 10
    assert np.abs(np.asarray(enlarged, float) - expected).max() <= 0.51


def test_a_network_that_restores_gets_an_enlarged_image(tmp_path, weights, monkeypatch):
    """Without its enlarging layers the network keeps the size."""
    monkeypatch.setattr("synfer_ray.faces.super_resolution.RESTORATION_SIDE", 40)
    kept = {key: value for key, value in weights.items() if not key.startswith("conv_up")}
    torch.save(kept, tmp_path / "restore.pth")
    image = picture(0, side=20).resize((20, 30))
    restored = SuperResolution(str(tmp_path / "restore.pth"))(image)
    enlarged = torch.tensor(np.asarray(image.resize((40, 60), Image.Resampling.LANCZOS)))
    expected = (
        esrgan(kept, enlarged.permute(2, 0, 1)[None] / 255)[0].clamp(0, 1).permute(1, 2, 0).numpy() * 255
    )
    assert restored.size == (40, 60)
    assert np.abs(np.asarray(restored, float) - expected).max() <= 0.51


def test_small_faces_go_through_it(tmp_path, weights):
    path = tmp_path / "esrgan.pth"
    torch.save({"params_ema": weights}, path)
    plain, enlarged = (
        face_rows(
            FaceAligner(FETextConfig(image_size=64, upscaler=upscaler))(
                face_table([{"index": 0, "image": png(0, 24)}])
            )
        )[0]
        for upscaler in ("lanczos", str(path))
    )
    first, second = (np.asarray(decode_image(row["image"]), float) for row in (plain, enlarged))
    assert first.shape == second.shape == (64, 64, 3) and np.abs(first - second).mean() > 5


def test_other_files_are_refused(tmp_path, weights):
    torch.save({"state_dict": {"layer.weight": torch.ones(2, 2)}}, tmp_path / "other.pth")
    torch.save({"params": weights | {"conv_last.bias": torch.full((3,), torch.nan)}}, tmp_path / "nan.pth")
    for name, message in {
        "absent.pth": "missing model file",
        "other.pth": "cannot load super-resolution model",
        "nan.pth": "not finite",
    }.items():
        with pytest.raises(InputError, match=message):
            SuperResolution(str(tmp_path / name))
