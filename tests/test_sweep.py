import numpy as np
import pytest
import torch
from PIL import Image

from synfer_ray.config import GenerateConfig, SweepConfig
from synfer_ray.diffusion.au_adapter import AUAdapter
from synfer_ray.errors import InputError
from synfer_ray.storage.weights import load_model, save_model
from synfer_ray.sweep import generate_sweep, one_unit, sweep
from synfer_ray.taxonomy.action_units import ACTION_UNITS
from tests.tiny_bundle import save_tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    """A tiny bundle whose adapter has an effect."""
    folder = save_tiny_bundle(tmp_path_factory.mktemp("sweep") / "tiny")
    adapter = load_model(AUAdapter, folder / "au_adapter")
    torch.manual_seed(1)
    for layer in adapter.layers:
        torch.nn.init.normal_(layer.to_v.weight)
    save_model(adapter, folder / "au_adapter")
    return folder


def config(bundle, output, **changes) -> SweepConfig:
    generate = {"bundle": str(bundle), "sampling": {"num_inference_steps": 2}}
    return SweepConfig(output=str(output), generate=generate, **changes)


def test_faces_of_a_sweep_differ_by_the_intensity_alone(bundle):
    settings = GenerateConfig(output="", bundle=str(bundle))
    settings.guidance.guide, settings.sampling.num_inference_steps = None, 2
    swept = config(bundle, "", action_units=["AU04", "AU12"], intensities=[0.0, 0.5, 0.5, 1.0])
    faces = {
        name: [np.asarray(image) for image in images]
        for name, images in generate_sweep(swept, settings, bundle).items()
    }
    assert list(faces) == ["AU04", "AU12"]
    for none, half, half_again, full in faces.values():
        assert np.array_equal(half, half_again)
        assert not np.array_equal(none, half) and not np.array_equal(half, full)
    assert np.array_equal(faces["AU04"][0], faces["AU12"][0])
    assert not np.array_equal(faces["AU04"][-1], faces["AU12"][-1])


def test_both_sides_of_the_face_move_together():
    units = dict(zip(ACTION_UNITS, one_unit("AU12", 0.7, ACTION_UNITS)))
    assert {name for name, value in units.items() if value} == {"AU12", "AUL12", "AUR12"}
    assert np.isnan(one_unit("AU12", 0.7, ("AU12",))).sum() == len(ACTION_UNITS) - 1


def test_the_picture_has_a_row_an_action_unit(bundle, tmp_path):
    for number, units in enumerate((["AU04"], ["AU04", "AU12"])):
        sweep(config(bundle, tmp_path / f"{number}.png", action_units=units))
    small, large = (Image.open(tmp_path / f"{number}.png").size for number in range(2))
    assert small[1] < large[1]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action_units": ["AU99"]}, "unknown action unit 'AU99'"),
        ({"intensities": [0.0, 1.5]}, r"\[0.0, 1.5\] are not all in \[0, 1\]"),
        ({"expression": "bored"}, "bored"),
    ],
)
def test_a_sweep_of_what_is_not_there_is_refused(bundle, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        sweep(config(bundle, tmp_path / "out.png", **changes))
