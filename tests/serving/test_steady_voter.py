from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from synfer_ray.calibration.experts import NetworkExpert
from synfer_ray.calibration.networks import FERClassifier
from synfer_ray.serving.steady_voter import SteadyVoter

FACES = np.random.default_rng(1).uniform(-1, 1, (8, 3, 4, 4)).astype(np.float32)


class Expert:
    """Votes by the pixels, and rounds otherwise in batches of some sizes, or in some places."""

    name = "expert"

    def __init__(self, crooked_sizes=(), crooked_place=None):
        self.crooked_sizes = crooked_sizes
        self.crooked_place = crooked_place
        self.batches = []

    def predict(self, pixels):
        self.batches.append(len(pixels))
        votes = np.repeat(pixels.mean(axis=(1, 2, 3))[:, None], 7, axis=1)
        if len(pixels) in self.crooked_sizes:
            votes += np.float32(1e-6)
        if self.crooked_place is not None:
            votes[self.crooked_place :] += np.float32(1e-6)
        return votes


@pytest.mark.parametrize(
    ("crooked", "sizes"), [((), [1, 2, 4, 8]), ((1,), [2, 4, 8]), ((2, 4), [1, 8]), ((1, 2, 4), [8])]
)
def test_sizes_that_round_otherwise_are_left_out(crooked, sizes):
    voter = SteadyVoter(expert := Expert(crooked), 8, 4)
    assert voter.way.sizes == sizes
    for count in range(1, 9):
        expert.batches.clear()
        votes, _ = voter(FACES[:count])
        assert expert.batches == [min(size for size in sizes if size >= count)]
        np.testing.assert_array_equal(votes, voter(FACES)[0][:count])


def test_a_full_batch_may_have_any_size():
    assert SteadyVoter(Expert(), 6, 4).way.sizes == [1, 2, 4, 6]
    assert SteadyVoter(Expert(), 1, 4).way.sizes == [1]


def test_where_the_place_in_a_batch_counts_faces_are_judged_one_by_one(caplog):
    voter = SteadyVoter(expert := Expert(crooked_place=3), 8, 4)
    expert.batches.clear()
    votes, _ = voter(FACES)
    assert expert.batches == [1] * 8 and "one by one" in caplog.text
    np.testing.assert_array_equal(votes, Expert().predict(FACES))


def test_a_size_that_rounds_one_face_in_thirty_otherwise_is_left_out():
    class Rare(Expert):
        def predict(self, pixels):
            votes = super().predict(pixels)
            if len(pixels) == 2:
                votes[np.abs(pixels[:, 0, 0, 0]) > 29 / 30] += np.float32(1e-6)
            return votes

    assert SteadyVoter(Rare(), 8, 4).way.sizes == [1, 4, 8]


def test_a_voter_that_says_nothing_says_it_in_every_batch():
    class Silent(Expert):
        def predict(self, pixels):
            return np.full((len(pixels), 7), np.nan, np.float32)

    assert SteadyVoter(Silent(), 4, 4).way.sizes == [1, 2, 4]


def test_a_network_of_ours_is_quickened_while_it_is_asked_and_answers_the_same():
    network = FERClassifier("residual", channels=(8, 16), input_size=32).eval()
    faces = np.random.default_rng(2).uniform(-1, 1, (8, 3, 32, 32)).astype(np.float32)
    voter = SteadyVoter(expert := NetworkExpert("residual", network), 8, 32)
    assert voter.way.expert is expert and voter.way.sizes == [8]
    before = voter(faces)[0]
    with ThreadPoolExecutor(1) as beside:
        quickening = beside.submit(voter.quicken)
        while not quickening.done():
            np.testing.assert_array_equal(voter(faces[:3])[0], before[:3])
    quickening.result()
    assert isinstance(voter.way.expert.model, torch.jit.ScriptModule) and voter.way.sizes[-1] == 8
    for count in range(1, 9):
        np.testing.assert_array_equal(voter(faces[:count])[0], before[:count])
    quick = voter.way
    voter.quicken()
    assert voter.way is quick  # once is enough
