from dataclasses import replace

import numpy as np
import pytest

from synfer_ray.config import TrainingConfig
from synfer_ray.storage.au_prior import AU_PRIOR, read_au_prior
from synfer_ray.taxonomy.action_units import ACTION_UNITS
from synfer_ray.taxonomy.expressions import EXPRESSIONS
from synfer_ray.training.au_prior import conclude, telling_faces, train_au_prior, typical
from tests.training.conftest import write_fetext

FACES = 420


def faces() -> tuple[np.ndarray, np.ndarray]:
    """Faces in which the unit of the same number grows with the expression; the last unit counts them."""
    rng = np.random.default_rng(3)
    labels = np.arange(FACES) % 7
    votes = (np.eye(7)[labels] + rng.dirichlet(np.ones(7), FACES)).astype(np.float32) / 2
    units = rng.random((FACES, 41)).astype(np.float32) * 0.3
    units[np.arange(FACES), labels] = rng.random(FACES)
    units[:, 40] = np.arange(FACES) / FACES
    return units, votes


def test_faces_are_picked_whose_action_units_tell_what_annotators_say():
    units, votes = faces()
    for place, (name, picked) in enumerate(telling_faces(units, votes, 10).items()):
        assert name == EXPRESSIONS[place] and picked.shape == (10, 41)
        those = (picked[:, 40] * FACES).round().astype(int)
        np.testing.assert_array_equal(picked, units[those])
        assert (votes[those].argmax(axis=1) == place).all()
        others = np.setdiff1d(np.flatnonzero(votes.argmax(axis=1) == place), those)
        assert units[those, place].mean() > units[others, place].mean() + 0.2
        assert votes[those, place].mean() > votes[others, place].mean()


def test_faces_of_which_nothing_is_known_are_left_out():
    units, votes = faces()
    units[:350] = np.nan
    for picked in telling_faces(units, votes, 10).values():
        assert (picked[:, 40] * FACES >= 349).all()
    units[:-3] = np.nan
    assert telling_faces(units, votes, 10) == {}


def test_no_readings_are_kept_of_no_faces():
    assert telling_faces(*faces(), 0) == {}


def test_the_regression_is_at_its_optimum_for_expressions_of_equal_weight():
    units, votes = faces()
    keep = np.flatnonzero((votes.argmax(axis=1) != 2) | (np.arange(FACES) < 70))  # few sad faces
    said, votes = conclude(units[keep], votes[keep]), votes[keep]
    labels = votes.argmax(axis=1)
    weight = 1 / np.bincount(labels)[labels]
    surplus = (weight[:, None] * (said - votes)).sum(axis=0)  # the gradient of the offsets
    assert np.abs(surplus).max() < 1e-3
    assert np.mean([(said.argmax(axis=1) == labels)[labels == place].mean() for place in range(7)]) > 0.7
    np.testing.assert_allclose(said.sum(axis=1), 1, rtol=1e-5)


def test_typical_faces_show_what_textbooks_list_and_nothing_else():
    rng = np.random.default_rng(1)
    read = rng.random((50, 41)).astype(np.float32)
    read[:, ACTION_UNITS.index("AU15")] = np.nan
    sad = dict(zip(ACTION_UNITS, typical("sad", read, rng).T))
    lowered = read[:, ACTION_UNITS.index("AUL04")]
    assert np.isnan(sad["AU15"]).all()
    assert (sad["AUL04"] >= lowered).all() and (sad["AUL04"] > lowered).any() and sad["AU04"].min() > 0.2
    assert (sad["AU01"] >= read[:, ACTION_UNITS.index("AU01")]).all()
    assert not any(sad[name].any() for name in ("AU07", "AU12", "AUR12", "AU20", "AU26"))


@pytest.mark.parametrize("unknown", [0, 7])
def test_an_unknown_unit_says_nothing(unknown):
    units, votes = faces()
    units[:, unknown] = np.nan
    picked = telling_faces(units, votes, 5)
    assert all(np.isnan(read[:, unknown]).all() and len(read) == 5 for read in picked.values())


def test_a_bundle_keeps_what_is_typical_of_the_named_expressions(tmp_path):
    fetext = write_fetext(tmp_path / "fetext")
    config = TrainingConfig(input=str(fetext), bundle=str(tmp_path / "bundle"), au_prior_faces=3)
    train_au_prior(config)
    plain = read_au_prior(tmp_path / "bundle" / AU_PRIOR)
    train_au_prior(replace(config, au_prior_typical=["sadness"]))
    typically = read_au_prior(tmp_path / "bundle" / AU_PRIOR)
    for name in EXPRESSIONS:
        assert np.array_equal(plain[name], typically[name], equal_nan=True) == (name != "sad")
