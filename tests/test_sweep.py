from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from synfer_ray.config import SweepConfig
from synfer_ray.diffusion.au_adapter import AUAdapter
from synfer_ray.errors import InputError, RunFailed
from synfer_ray.pipeline import make_plan
from synfer_ray.plan import plan_row
from synfer_ray.prompts.cues import without_cues
from synfer_ray.stages.sample_rows import rejection
from synfer_ray.storage.weights import load_model, save_model
from synfer_ray.sweep import generate_sweep, half_face, image_of, one_unit, sweep, sweep_settings
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


def faces_of(swept: SweepConfig, bundle) -> dict[str, list[np.ndarray]]:
    rows = generate_sweep(swept, sweep_settings(swept), bundle)
    return {name: [np.asarray(image) for image in images] for name, images in rows.items()}


@pytest.mark.parametrize("layout", ["none", "partial_noise", "ddim_inversion"])
def test_faces_of_a_sweep_differ_by_the_intensity_alone(bundle, layout):
    swept = config(bundle, "", action_units=["AU04", "AU12"], intensities=[0.0, 0.5, 0.5, 1.0])
    swept.generate["layout"] = {"mode": layout}
    faces = faces_of(swept, bundle)
    assert list(faces) == ["AU04", "AU12"]
    for none, half, half_again, full in faces.values():
        assert np.array_equal(half, half_again)
        assert not np.array_equal(none, half) and not np.array_equal(half, full)
    assert np.array_equal(faces["AU04"][0], faces["AU12"][0])
    assert not np.array_equal(faces["AU04"][-1], faces["AU12"][-1])


def test_faces_stay_closer_to_the_relaxed_one_that_they_continue_from(bundle):
    changes = {}
    for strength in (0.5, 1.0):
        changed = {"action_units": ["AU12"], "intensities": [0.0, 1.0], "strength": strength}
        swept = config(bundle, "", local=False, **changed)
        swept.generate["sampling"] = {"num_inference_steps": 4}
        none, full = (face.astype(float) for face in faces_of(swept, bundle)["AU12"])
        changes[strength] = np.abs(full - none).mean()
    assert 0 < changes[0.5] < 0.9 * changes[1.0]
    with pytest.raises(InputError, match="strength=0 is not above 0"):
        sweep_settings(config(bundle, "", strength=0))


@pytest.mark.parametrize(("name", "moved"), [("AU04", slice(0, 16)), ("AU12", slice(16, 32))])
def test_the_other_half_of_the_face_stays(bundle, name, moved):
    changes = []
    for local in (True, False):
        none, full = faces_of(
            config(bundle, "", action_units=[name], intensities=[0.0, 1.0], local=local, strength=1.0), bundle
        )[name]
        change = np.abs(full.astype(float) - none).mean(axis=(1, 2))
        changes.append(change[moved].sum() / change.sum())
    assert changes[0] > changes[1] + 0.1  # the tiny decoder looks at the whole image


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("AU01", [(0.3, 0.3), (0.4, 0.7)], [(0.8, 0.5), (0.35, 0.0)]),
        ("AUR04", [(0.3, 0.3), (0.4, 0.7)], [(0.8, 0.5), (0.35, 1.0)]),
        ("AU09", [(0.55, 0.5), (0.6, 0.45)], [(0.2, 0.5), (0.95, 0.5)]),
        ("AU12", [(0.77, 0.4), (0.99, 0.5)], [(0.3, 0.5), (0.77, 0.0)]),
    ],
)
def test_action_units_move_brows_and_lids_or_the_mouth(name, inside, outside):
    mask = half_face(name, 64, 64)
    heights, widths = zip(*(np.array(inside + outside) * 63).round().astype(int))
    values = mask[list(heights), list(widths)]
    assert (values[:2] > 0.95).all() and (values[2:] < 0.15).all()


def test_both_halves_make_a_face_but_for_the_tip_of_the_nose():
    upper, lower = half_face("AU01", 64, 64), half_face("AU26", 64, 64)
    both = (upper + lower)[16:, 16:48]
    assert both.min() > 0.6 and both.max() < 1.02  # the tip of the nose is in neither
    torch.testing.assert_close(upper, upper.flip(1))


def test_another_seed_is_another_face(bundle):
    first, again, other = (
        faces_of(config(bundle, "", action_units=["AU04"], intensities=[0.0], seed=seed), bundle)["AU04"][0]
        for seed in (1, 1, 2)
    )
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_the_prompt_names_no_action_unit_whatever_is_asked_for(bundle):
    settings = sweep_settings(config(bundle, "", expression="happy"))
    silent, told = (
        plan_row(make_plan(replace(settings, describe_action_units=tell), bundle), 0).prompt
        for tell in (settings.describe_action_units, True)
    )
    assert silent == without_cues(told) != told


def test_a_face_that_is_not_finite_ends_the_sweep():
    with pytest.raises(RunFailed, match="not_finite, 3 values"):
        image_of({"action_units": [0.0]} | rejection("generate", "not_finite", "3 values"))


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
        ({"intensities": []}, "action_units and intensities must each name at least one"),
        ({"action_units": []}, "action_units and intensities must each name at least one"),
        ({"expression": "bored"}, "bored"),
    ],
)
def test_a_sweep_of_what_is_not_there_is_refused(bundle, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        sweep(config(bundle, tmp_path / "out.png", **changes))
