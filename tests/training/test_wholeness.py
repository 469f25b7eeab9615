import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from synfer_ray.calibration.networks import FERClassifier
from synfer_ray.calibration.wholeness import READINGS, WholenessNet
from synfer_ray.config import FitConfig
from synfer_ray.errors import InputError
from synfer_ray.storage.weights import load_model, save_model
from synfer_ray.training.builds import build_wholeness
from synfer_ray.training.loop import fit
from synfer_ray.training.wholeness import WholenessObjective, ordered_share
from tests.fake_dataset import face

torch.set_num_threads(1)


def test_the_network_learns_which_faces_are_broken(tmp_path):
    rng = np.random.default_rng(0)
    images = np.stack([np.asarray(face(index)) for index in range(96)])
    rating = (np.arange(96) % 2).astype(np.float32)
    images[rating == 0, 20:34] = images[rating == 0, 12:13]  # no eyes
    torch.manual_seed(0)
    objective = WholenessObjective(WholenessNet(input_size=32, channels=(8, 8, 16)))
    config = FitConfig(
        steps=150, batch_size=16, learning_rate=3e-3, ema_decay=0.9, validation_rows=24, checkpoint_every=150
    )
    figures: dict[str, float] = {}
    order = rng.permutation(96)
    arrays = {"image": images[order], "rating": rating[order]}
    fit(objective, arrays, config, tmp_path, lambda new, _: figures.update(new))
    assert figures["validation_ordered"] > 0.8
    objective.export(tmp_path / "wholeness")
    network = load_model(WholenessNet, tmp_path / "wholeness")
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        wholeness, readings = network(pixels)
    assert readings is None
    assert wholeness.shape == (96,) and (wholeness >= 0).all() and (wholeness <= 1).all()
    assert wholeness[rating == 1].mean() > wholeness[rating == 0].mean() + 0.2


def test_the_network_learns_what_viewers_read(tmp_path):
    images = np.stack([np.asarray(face(index)) for index in range(96)])
    eyeless = np.arange(96) % 3 == 0
    images[eyeless, 20:34] = images[eyeless, 12:13]
    readings = np.zeros((96, 8), np.float32)
    readings[eyeless, READINGS.index("sad")] = readings[~eyeless, READINGS.index("happy")] = 0.75
    readings[:, READINGS.index("unclear")] = 0.25  # one viewer of four
    torch.manual_seed(0)
    objective = WholenessObjective(WholenessNet(reads=True, input_size=32, channels=(8, 8, 16)))
    config = FitConfig(steps=150, batch_size=16, learning_rate=3e-3, ema_decay=0.9, validation_rows=24)
    figures: dict[str, float] = {}
    arrays = {"image": images, "rating": np.ones(96, np.float32), "readings": readings}
    fit(objective, arrays, config, tmp_path, lambda new, _: figures.update(new))
    assert figures["validation_read_alike"] > 0.9
    objective.export(tmp_path / "wholeness")
    network = load_model(WholenessNet, tmp_path / "wholeness")
    with torch.no_grad():
        wholeness, read = network(torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1)
    assert wholeness.min() > 0.8
    torch.testing.assert_close(read.sum(1), torch.ones(96))
    sad, happy, unclear = (read[:, READINGS.index(name)].numpy() for name in ("sad", "happy", "unclear"))
    assert (sad[eyeless] > happy[eyeless]).mean() > 0.9 and (happy[~eyeless] > sad[~eyeless]).mean() > 0.9
    assert 0.1 < unclear.mean() < 0.4


def test_it_starts_from_an_expert_of_the_bundle(tmp_path):
    expert = FERClassifier("separable", input_size=32, channels=(8, 8, 16))
    save_model(expert, tmp_path / "experts" / "one")
    save_model(FERClassifier("residual", input_size=32, channels=(8, 8)), tmp_path / "experts" / "other")
    network = build_wholeness(str(tmp_path), "one", reads=True).network
    assert network.config["channels"] == [8, 8, 16]
    torch.testing.assert_close(network.trunk[0].weight, expert.network.trunk[0].weight)
    with pytest.raises(InputError, match="wholeness_base=other is no separable network"):
        build_wholeness(str(tmp_path), "other", reads=False)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2)), min_size=2, max_size=9))
@settings(deadline=None)
def test_ordered_share_counts_pairs(rated):
    wins = [(a > b) + (a == b) / 2 for a, better in rated for b, worse in rated if better > worse]
    scores, ratings = (np.array(column, np.float32) for column in zip(*rated))
    share = ordered_share(scores, ratings)
    assert np.isnan(share) if not wins else share == pytest.approx(np.mean(wins))
