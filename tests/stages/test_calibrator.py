import numpy as np
import pytest

from synfer_ray.config import VoteConfig
from synfer_ray.errors import InputError
from synfer_ray.stages.calibrator import Calibrator
from synfer_ray.stages.sample_rows import rejection, sample_rows
from synfer_ray.taxonomy.expressions import EXPRESSIONS

VOTERS = ("one", "two", "three")
INDEX = {name: number for number, name in enumerate(EXPRESSIONS)}


def opinion(expression: str, confidence: float = 0.9) -> list[float]:
    probabilities = np.full(7, (1 - confidence) / 6)
    probabilities[INDEX[expression]] = confidence
    return probabilities.tolist()


def row(assigned: str | None, *opinions: list[float], compound: str | None = None) -> dict:
    return {
        "index": 0,
        "assigned_label": None if assigned is None else INDEX[assigned],
        "compound": compound,
        **{f"voter_{name}": vote for name, vote in zip(VOTERS, opinions)},
    }


def settle(planned: dict, **settings) -> dict:
    return Calibrator(VOTERS, VoteConfig(**settings))(sample_rows([planned], VOTERS)).to_pylist()[0]


def test_agreement_keeps_the_label():
    out = settle(row("sad", opinion("sad"), opinion("sad"), opinion("fear", 0.5)))
    assert (out["label"], out["decision"], out["reason"]) == (INDEX["sad"], "agree", None)
    assert out["agreement"] == pytest.approx(2 / 3)
    assert sum(out["label_probs"]) == pytest.approx(1, abs=1e-5)


def test_a_confident_majority_corrects_the_label():
    out = settle(row("fear", *[opinion("surprise")] * 3))
    assert (out["label"], out["assigned_label"], out["decision"]) == (
        INDEX["surprise"],
        INDEX["fear"],
        "relabel",
    )


def test_a_split_vote_becomes_a_counted_reject():
    out = settle(row("fear", opinion("happy"), opinion("sad"), opinion("anger")))
    assert (out["stage"], out["reason"], out["label"]) == ("vote", "low_confidence", None)
    assert out["label_probs"] is not None


def test_weights_go_by_the_name_of_the_voter():
    votes = row("sad", opinion("sad"), opinion("happy"), opinion("happy"))
    assert settle(votes)["label"] == INDEX["happy"]
    assert settle(votes, weights={"one": 5.0})["label"] == INDEX["sad"]


def test_class_weights_go_by_the_name_of_the_expression():
    startled = np.array(opinion("surprise", 0.5)) * 0.6 + np.array(opinion("fear", 0.5)) * 0.4
    votes = row("fear", *[startled.tolist()] * 3)
    assert settle(votes)["reason"] == "low_confidence"
    weighted = settle(votes, class_weights={"afraid": 2.0})
    assert (weighted["label"], weighted["decision"], weighted["agreement"]) == (INDEX["fear"], "agree", 1.0)
    assert sum(weighted["label_probs"]) == pytest.approx(1, abs=1e-5)
    assert weighted["voter_one"] == pytest.approx(votes["voter_one"])


@pytest.mark.parametrize("compound, assigned", [("fearfully surprised", "surprise"), (None, None)])
def test_claims_of_several_expressions_are_weighted_too(compound, assigned):
    startled = np.array(opinion("surprise", 1.0)) * 0.7 + np.array(opinion("fear", 1.0)) * 0.3
    votes = row(assigned, *[startled.tolist()] * 3, compound=compound)
    for weights, label in (({}, "surprise"), ({"fear": 4.0}, "fear")):
        out = settle(votes, class_weights=weights)
        assert (out["label"], out["decision"]) == (INDEX[label], "agree")


def test_an_expression_has_one_weight():
    with pytest.raises(InputError, match="twice: fear, afraid"):
        settle(row("fear", *[opinion("fear")] * 3), class_weights={"fear": 4.0, "afraid": 1.0})


def test_either_part_of_a_compound_expression_agrees():
    votes = [opinion("anger")] * 3
    out = settle(row("sad", *votes, compound="sadly angry"))
    assert (out["label"], out["decision"]) == (INDEX["anger"], "agree")
    assert settle(row("sad", *votes))["decision"] == "relabel"


def test_a_face_without_label_gets_the_favourite():
    out = settle(row(None, *[opinion("disgust")] * 3))
    assert (out["label"], out["assigned_label"]) == (INDEX["disgust"], None)


def test_rejected_rows_are_left_alone():
    table = sample_rows([row("sad") | rejection("generate", "black", "x")], VOTERS)
    assert Calibrator(VOTERS, VoteConfig())(table).equals(table)


def test_votes_that_are_not_finite_are_rejected():
    out = settle(row("sad", [float("nan")] * 7, opinion("sad"), opinion("sad")))
    assert out["reason"] == "not_finite"
