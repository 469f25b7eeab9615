import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from synfer_ray.errors import InputError
from synfer_ray.taxonomy.action_units import ACTION_UNITS, LEFT_RIGHT, au_dict
from synfer_ray.taxonomy.au_priors import (
    ASYMMETRY,
    AU_PRIORS,
    EMFACS_SHARE,
    sample_action_units,
    typical_intensity,
)
from synfer_ray.taxonomy.compounds import COMPOUND_EXPRESSIONS
from synfer_ray.taxonomy.expressions import EXPRESSIONS

anything = st.sampled_from(list(AU_PRIORS))
seeds = st.integers(0, 2**32 - 1)


def test_every_expression_has_a_prior_of_main_units():
    assert set(AU_PRIORS) == {*EXPRESSIONS, *COMPOUND_EXPRESSIONS}
    for prior in AU_PRIORS.values():
        units = [*prior.prototypical, *prior.variants]
        assert set(units) <= set(ACTION_UNITS[:27])
        assert len(units) == len(set(units))
        assert all(share == EMFACS_SHARE or 0.2 <= share < 0.7 for share in prior.variants.values())


def test_published_rows():
    assert AU_PRIORS["fear"].prototypical == ("AU01", "AU04", "AU20", "AU25")
    assert AU_PRIORS["sad"].variants == {"AU01": 0.6, "AU06": 0.5, "AU11": 0.26, "AU17": 0.67}
    assert AU_PRIORS["awed"].variants == {"AU04": 0.21, "AU20": 0.62, "AU26": 0.56}


@given(anything, seeds)
def test_only_listed_units_prototypical_always_sides_follow(expression, seed):
    vector = sample_action_units(expression, np.random.default_rng(seed))
    assert vector.shape == (41,) and vector.dtype == np.float32
    assert ((vector >= 0) & (vector <= 1)).all()
    shown, prior = au_dict(vector), AU_PRIORS[expression]
    main = {unit for unit in shown if unit in ACTION_UNITS[:27]}
    assert set(prior.prototypical) <= main <= {*prior.prototypical, *prior.variants}
    for unit, sides in LEFT_RIGHT.items():
        for side in sides:
            assert shown.get(side, 0) == pytest.approx(shown.get(unit, 0), rel=ASYMMETRY + 1e-6)


@given(anything, seeds)
def test_same_seed_same_face(expression, seed):
    first, second = (sample_action_units(expression, np.random.default_rng(seed)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_variants_appear_at_their_share_and_intensities_vary():
    rng = np.random.default_rng(0)
    draws = np.stack([sample_action_units("sad", rng) for _ in range(2000)])
    for unit, share in AU_PRIORS["sad"].variants.items():
        assert (draws[:, ACTION_UNITS.index(unit)] > 0).mean() == pytest.approx(share, abs=0.04)
    corner = draws[:, ACTION_UNITS.index("AU15")]
    assert corner.mean() == pytest.approx(0.6, abs=0.02)
    assert corner.std() > 0.05
    left, right = (draws[:, ACTION_UNITS.index(side)] for side in LEFT_RIGHT["AU04"])
    assert (left != right).mean() > 0.9


def test_intensity_of_a_blend_is_the_mean_of_its_components():
    assert typical_intensity("happy", "AU12") == 0.8
    assert typical_intensity("happily surprised", "AU12") == 0.8
    assert typical_intensity("happily surprised", "AU25") == pytest.approx((0.3 + 0.36) / 2)
    assert typical_intensity("anger", "AU24") == 0.6


def test_neutral_is_at_rest_and_unknown_is_refused():
    assert not sample_action_units("neutral", np.random.default_rng(0)).any()
    with pytest.raises(InputError, match="'smug'"):
        sample_action_units("smug", np.random.default_rng(0))
