import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from synfer_ray.calibration.vote import check_roles, reweight, vote
from synfer_ray.errors import InputError

AGREE = [[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.1, 0.8, 0.1]]
CLEAR_MISMATCH = [[0.1, 0.8, 0.1], [0.2, 0.7, 0.1], [0.3, 0.5, 0.2]]
UNSURE_MISMATCH = [[0.3, 0.5, 0.2], [0.4, 0.5, 0.1], [0.3, 0.4, 0.3]]
SPLIT = [[0.01, 0.98, 0.01], [0.55, 0.45, 0.0], [0.52, 0.48, 0.0]]
EXACT_HALF = [[0.1, 0.9, 0.0], [0.55, 0.45, 0.0]]
NOT_FINITE = [[np.nan, 0.5, 0.5], [0.1, 0.8, 0.1], [0.1, 0.8, 0.1]]


@pytest.mark.parametrize(
    ("opinions", "on_mismatch", "decision", "label", "reason"),
    [
        (AGREE, "relabel", "agree", 0, ""),
        (AGREE, "filter", "agree", 0, ""),
        (AGREE, "keep_soft", "agree", 0, ""),
        (CLEAR_MISMATCH, "relabel", "relabel", 1, ""),
        (CLEAR_MISMATCH, "filter", "reject", 1, "mismatch"),
        (CLEAR_MISMATCH, "keep_soft", "keep_soft", 1, ""),
        (UNSURE_MISMATCH, "relabel", "reject", 1, "low_confidence"),
        (UNSURE_MISMATCH, "filter", "reject", 1, "mismatch"),
        (UNSURE_MISMATCH, "keep_soft", "keep_soft", 1, ""),
        (SPLIT, "relabel", "reject", 1, "no_majority"),
        (SPLIT, "keep_soft", "keep_soft", 1, ""),
        (EXACT_HALF, "relabel", "reject", 1, "no_majority"),
        (NOT_FINITE, "relabel", "reject", 0, "not_finite"),
        (NOT_FINITE, "keep_soft", "reject", 0, "not_finite"),
    ],
)
def test_decision_table(opinions, on_mismatch, decision, label, reason) -> None:
    result = vote(np.array(opinions)[:, None], np.array([0]), on_mismatch=on_mismatch)
    outcome = (result.decision[0], result.label[0], result.reason[0])
    assert outcome == (decision, label, reason)


def test_relabel_needs_the_threshold_and_reaches_it_from_above() -> None:
    opinions = np.array([[[0.25, 0.75]], [[0.25, 0.75]]])
    at = vote(opinions, np.array([0]), relabel_threshold=0.75)
    above = vote(opinions, np.array([0]), relabel_threshold=0.7501)
    assert at.decision[0] == "relabel"
    assert (above.decision[0], above.reason[0]) == ("reject", "low_confidence")


def test_low_confidence_rejects_agreeing_rows_too() -> None:
    result = vote(np.array([[[0.4, 0.3, 0.3]]]), np.array([0]), min_confidence=0.5)
    assert (result.decision[0], result.reason[0]) == ("reject", "low_confidence")


def test_class_weights_by_hand() -> None:
    opinions = np.array([[0.1, 0.8, 0.1], [0.25, 0.5, 0.25]])[:, None]
    expected = [np.array([0.4, 0.8, 0.1]) / 1.3, np.array([1.0, 0.5, 0.25]) / 1.75]
    np.testing.assert_allclose(reweight(opinions, [4.0, 1.0, 1.0])[:, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(reweight(opinions, [2.0, 2.0, 2.0]), opinions, rtol=1e-6)


def test_class_weights_leave_what_is_not_finite() -> None:
    result = vote(reweight(np.array(NOT_FINITE)[:, None], [4.0, 1.0, 1.0]), np.array([0]))
    assert result.reason[0] == "not_finite"


def test_probs_and_agreement_by_hand() -> None:
    result = vote(np.array(AGREE)[:, None], np.array([0]))
    np.testing.assert_allclose(result.probs[0], [0.5, 0.4, 0.1], rtol=1e-6)
    assert result.agreement[0] == pytest.approx(2 / 3)
    assert result.probs.dtype == np.float32


def test_weights_by_hand() -> None:
    result = vote(np.array(AGREE)[:, None], np.array([0]), weights=[1, 1, 2])
    np.testing.assert_allclose(result.probs[0], [0.4, 0.5, 0.1], rtol=1e-6)
    assert result.reason[0] == "low_confidence"


@pytest.mark.parametrize("assigned", [0, 1, 2])
def test_a_tie_goes_to_the_lower_index_even_against_the_assigned_label(assigned: int) -> None:
    opinions = np.array([[[0.1, 0.7, 0.2]], [[0.1, 0.2, 0.7]]])
    result = vote(opinions, np.array([assigned]), on_mismatch="keep_soft")
    assert result.label[0] == 1
    assert result.decision[0] == ("agree" if assigned == 1 else "keep_soft")


def test_a_tie_survives_rounding() -> None:
    # 0.1 + 0.2 + 0.3 and 0.15 + 0.15 + 0.3 differ in the last bit.
    opinions = np.array([[[0.15, 0.1]], [[0.15, 0.2]], [[0.3, 0.3]]])
    assert vote(opinions, np.array([0])).label[0] == 0
    assert vote(opinions[..., ::-1], np.array([0])).label[0] == 0


opinions_and_order = st.tuples(st.integers(1, 6), st.integers(1, 4)).flatmap(
    lambda shape: st.tuples(
        hnp.arrays(np.float32, (*shape, 7), elements=st.floats(1 / 64, 1, width=32)),
        hnp.arrays(np.int64, shape[1], elements=st.integers(0, 6)),
        hnp.arrays(np.float64, shape[0], elements=st.floats(0.1, 10)),
        st.permutations(range(shape[0])),
    )
)


@settings(deadline=None)
@given(opinions_and_order, st.sampled_from(["relabel", "filter", "keep_soft"]))
def test_order_of_voters_does_not_matter(case, on_mismatch) -> None:
    raw, assigned, weights, order = case
    opinions = raw / raw.sum(axis=-1, keepdims=True)
    first = vote(opinions, assigned, on_mismatch=on_mismatch)
    second = vote(opinions[list(order)], assigned, on_mismatch=on_mismatch)
    for name in ("decision", "label", "probs", "agreement", "reason"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    weighted = vote(opinions, assigned, weights=list(weights)).probs
    np.testing.assert_allclose(
        weighted, vote(opinions[list(order)], assigned, weights=list(weights[list(order)])).probs, atol=1e-6
    )


@settings(deadline=None)
@given(opinions_and_order, st.sampled_from(["relabel", "filter", "keep_soft"]))
def test_every_row_has_one_outcome_that_fits_its_numbers(case, on_mismatch) -> None:
    raw, assigned, _, _ = case
    result = vote(raw / raw.sum(axis=-1, keepdims=True), assigned, on_mismatch=on_mismatch)
    rejected = result.decision == "reject"
    np.testing.assert_array_equal(rejected, result.reason != "")
    assert (result.label[result.decision == "agree"] == assigned[result.decision == "agree"]).all()
    changed = np.isin(result.decision, ["relabel", "keep_soft"])
    assert (result.label[changed] != assigned[changed]).all()
    relabelled = result.decision == "relabel"
    assert (result.probs.max(-1)[relabelled] >= 0.6 - 1e-6).all()
    assert (result.agreement[relabelled] > 0.5).all()
    np.testing.assert_allclose(result.probs.sum(-1), 1, atol=1e-5)


def test_rows_do_not_depend_on_their_neighbours() -> None:
    rng = np.random.default_rng(0)
    opinions, assigned = rng.dirichlet(np.ones(7), (3, 40)), rng.integers(0, 7, 40)
    together = vote(opinions, assigned)
    for row in range(40):
        alone = vote(opinions[:, row : row + 1], assigned[row : row + 1])
        assert alone.decision[0] == together.decision[row]
        assert np.array_equal(alone.probs[0], together.probs[row])


def test_bad_input_is_named() -> None:
    opinions = np.full((2, 3, 7), 1 / 7)
    with pytest.raises(InputError, match=r"drop.*choices: relabel"):
        vote(opinions, np.zeros(3, int), on_mismatch="drop")
    with pytest.raises(InputError, match="4 labels"):
        vote(opinions, np.zeros(4, int))
    with pytest.raises(InputError, match="2 voters"):
        vote(opinions, np.zeros(3, int), weights=[1.0])
    with pytest.raises(InputError, match="non-negative"):
        vote(opinions, np.zeros(3, int), weights=[1.0, -1.0])


@pytest.mark.parametrize(
    ("guide", "voters", "judge", "clash"),
    [
        ("plain", ["plain", "feranno"], None, "plain.*guide.*voter"),
        ("plain", ["feranno"], "plain", "plain.*guide.*judge"),
        (None, ["residual", "feranno"], "residual", "residual.*voter.*judge"),
        (None, ["residual", "residual"], None, "residual.*voter"),
    ],
)
def test_no_classifier_has_two_roles(guide, voters, judge, clash) -> None:
    with pytest.raises(InputError, match=clash):
        check_roles(guide, voters, judge)


def test_separate_roles_pass() -> None:
    check_roles("plain", ["residual", "feranno"], "separable")
    check_roles(None, ["residual", "feranno"], None)
