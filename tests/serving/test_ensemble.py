from dataclasses import replace

import numpy as np
import pytest

from synfer_ray.calibration.recorded import RecordedAnnotator
from synfer_ray.config import ServeConfig, VoteConfig
from synfer_ray.errors import InputError
from synfer_ray.faces.images import decode_image, square_pixels
from synfer_ray.serving.ensemble import Ensemble
from synfer_ray.serving.faces import Face
from synfer_ray.stages.calibrator import Calibrator
from synfer_ray.stages.sample_rows import sample_rows
from synfer_ray.stages.voter import Voter
from synfer_ray.storage.bundle import FERANNO
from synfer_ray.taxonomy.expressions import EXPRESSIONS
from tests.fake_dataset import face, png

FILES = [png(face(index, 40)) for index in range(7)]
LABELS = ["happy", "sad", None, "fear", "happy", None, "anger"]


@pytest.fixture(scope="module")
def ensemble(serve_config):
    return Ensemble(serve_config)


@pytest.fixture(scope="module")
def faces(ensemble):
    return [
        Face(square_pixels(decode_image(data), ensemble.image_size), label)
        for data, label in zip(FILES, LABELS)
    ]


def test_verdicts_are_the_rows_of_the_calibrate_job(ensemble, faces, serve_config):
    rows = [
        {
            "index": index,
            "image": {"bytes": data, "path": ""},
            "assigned_label": label and EXPRESSIONS.index(label),
        }
        for index, (data, label) in enumerate(zip(FILES, LABELS))
    ]
    table = Voter(serve_config, serve_config.voters)(sample_rows(rows, serve_config.voters))
    table = Calibrator(serve_config.voters, serve_config.vote)(table)
    verdicts = [verdict for face in faces for verdict in ensemble([face])]
    assert {verdict.decision for verdict in verdicts} >= {"agree", "reject"}
    for verdict, row in zip(verdicts, table.to_pylist()):
        np.testing.assert_array_equal(verdict.probabilities, np.float32(row["label_probs"]))
        for name, votes in zip(serve_config.voters, verdict.votes):
            np.testing.assert_array_equal(votes, np.float32(row[f"voter_{name}"]))
        if verdict.decision == "reject":
            assert verdict.reason == row["reason"] and row["label"] is None
        else:
            assert EXPRESSIONS.index(verdict.label) == row["label"]
            assert verdict.decision == row["decision"]
            assert verdict.agreement == pytest.approx(row["agreement"])


def test_an_answer_does_not_depend_on_the_batch(ensemble, faces):
    alone = [ensemble([face])[0] for face in faces]
    for size in range(1, ensemble.batch_size + 1):
        for first in range(len(faces)):
            for one, verdict in zip(faces[first : first + size], ensemble(faces[first : first + size])):
                np.testing.assert_array_equal(verdict.votes, alone[faces.index(one)].votes)


def test_a_quickened_ensemble_gives_the_same_answers(ensemble, faces, serve_config):
    quick = Ensemble(serve_config)
    quick.quicken()
    assert all(voter.way.expert is not slow.way.expert for voter, slow in zip(quick.voters, ensemble.voters))
    asked = [replace(face, attention=True) for face in faces]
    for size in range(1, len(asked) + 1):
        for verdict, expected in zip(quick(asked[:size]), ensemble(asked[:size])):
            np.testing.assert_array_equal(verdict.votes, expected.votes)
            np.testing.assert_array_equal(verdict.attention, expected.attention)


def test_quickening_amid_an_answer_does_not_touch_it(ensemble, faces, serve_config):
    quick = Ensemble(serve_config)
    voter = quick.voters[serve_config.voters.index(FERANNO)]

    def quicken(*_):
        hook.remove()
        voter.quicken()

    hook = voter.way.expert.components.unet.mid_block.register_forward_pre_hook(quicken)
    for verdict, expected in zip(quick(faces), ensemble(faces)):
        np.testing.assert_array_equal(verdict.votes, expected.votes)
    assert isinstance(voter.way.expert, RecordedAnnotator)


def test_attention_comes_for_those_who_ask(ensemble, faces):
    wanted, other = ensemble([replace(faces[0], attention=True), faces[1]])
    assert other.attention is None
    assert wanted.attention.ndim == 2 and np.isfinite(wanted.attention).all() and np.ptp(wanted.attention) > 0


def test_the_rule_of_the_vote_is_that_of_the_settings(serve_config, faces):
    strict = Ensemble(replace(serve_config, vote=VoteConfig(min_confidence=0.99)))
    verdict = strict([faces[0]])[0]
    assert (verdict.decision, verdict.reason) == ("reject", "low_confidence")
    assert verdict.label in EXPRESSIONS


def test_a_missing_model_is_bad_input(tmp_path):
    with pytest.raises(InputError, match="no model bundle"):
        Ensemble(ServeConfig(bundle=str(tmp_path)))
