from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from synfer_ray.calibration.wholeness import WholenessNet
from synfer_ray.config import GenerateConfig
from synfer_ray.errors import InputError
from synfer_ray.faces.images import decode_image
from synfer_ray.plan import Plan, plan_row
from synfer_ray.stages.image_generator import ImageGenerator
from synfer_ray.stages.sample_rows import sample_rows
from synfer_ray.storage.au_prior import AU_PRIOR, read_au_prior
from synfer_ray.storage.weights import save_model
from synfer_ray.taxonomy.action_units import ACTION_UNITS
from synfer_ray.training.augment import from_uint8
from synfer_ray.training.drawn import LatentDrawer, ScoredDrawer, judges, lend, take_pairs
from tests.tiny_bundle import save_tiny_bundle


@pytest.fixture
def config(tmp_path) -> GenerateConfig:
    bundle = save_tiny_bundle(tmp_path / "tiny")
    return GenerateConfig(
        output=str(tmp_path), bundle=str(bundle), voters=[], batch_size=2, min_wholeness=0.0
    )


def test_drawn_latents_are_those_that_generate_decodes(config):
    drawn = LatentDrawer(config)({"index": np.arange(2)})
    assert drawn["latents"].shape == (2, 4, 8, 8) and drawn["latents"].dtype == np.float16

    readings = read_au_prior(Path(config.bundle) / AU_PRIOR)
    plan = Plan(config, {"model": None, "adapter": None}, readings=readings)
    generator = ImageGenerator(config)
    table = generator(sample_rows([asdict(plan_row(plan, index)) for index in range(2)], []))
    vae = generator.components.vae
    with torch.no_grad():
        images = vae.decode(torch.from_numpy(drawn["latents"]).float() / vae.config.scaling_factor).sample
    stored = np.stack([np.asarray(decode_image(row["image"]["bytes"])) for row in table.to_pylist()])
    torch.testing.assert_close(images.clamp(-1, 1), from_uint8(torch.from_numpy(stored)), atol=2e-2, rtol=0)


def test_every_face_is_lent_the_same_latents_again():
    latents = np.arange(5)[:, None]
    names = np.array([f"face-{k}" for k in range(50)])
    lent = lend({"sample_id": names}, latents)["drawn"][:, 0]
    assert set(lent) == set(range(5))
    assert lend({"sample_id": names[7:9]}, latents)["drawn"][:, 0].tolist() == lent[7:9].tolist()


def test_a_scored_draw_is_the_same_draw(config):
    save_model(WholenessNet(input_size=32, channels=(8, 8, 16)), Path(config.bundle) / "wholeness")
    numbers = {"index": np.arange(3)}  # the second batch is filled up
    plain, scored = LatentDrawer(config)(numbers), ScoredDrawer(config, ["residual", "separable"])(numbers)
    np.testing.assert_array_equal(scored["latents"], plain["latents"])
    assert scored["action_units"].shape == (3, len(ACTION_UNITS))
    assert len(scored["input_ids"]) == 3 and np.isfinite(scored["score"]).all()

    taken = take_pairs({"sample_id": np.array([5]), "pair": np.array([[1, 0]])}, scored)
    np.testing.assert_array_equal(taken["latents"][0, 0], scored["latents"][1])
    np.testing.assert_array_equal(taken["action_units"][0, 1], scored["action_units"][0])


def test_the_guide_is_no_judge_of_what_it_guided(tmp_path):
    (tmp_path / "experts" / "guide").mkdir(parents=True)
    with pytest.raises(InputError, match="no expert beside the guide"):
        judges(tmp_path)
    (tmp_path / "experts" / "other").mkdir()
    assert judges(tmp_path) == ["other"]
