import numpy as np

from synfer_ray.taxonomy.expressions import EXPRESSIONS
from synfer_ray.training.au_prior import clearest_faces


def faces(count: int = 400) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    units = rng.random((count, 41)).astype(np.float32)
    units[:, 5] = np.arange(count) / count  # tells which face it is
    return units, rng.dirichlet(np.full(7, 0.4), count)


def test_the_clearest_faces_of_each_expression_are_picked():
    units, probs = faces()
    for place, (name, picked) in enumerate(clearest_faces(units, probs, 5).items()):
        assert name == EXPRESSIONS[place] and picked.shape == (5, 41)
        those = np.flatnonzero(probs.argmax(axis=1) == place)
        clearest = sorted(those, key=lambda row: -probs[row, place])[:5]
        np.testing.assert_array_equal(picked, units[clearest])


def test_faces_of_which_nothing_is_known_are_left_out():
    units, probs = faces()
    known = clearest_faces(units, probs, 5)
    best = np.flatnonzero((units == known["happy"][0]).all(axis=1))
    units[best] = np.nan
    np.testing.assert_array_equal(clearest_faces(units, probs, 4)["happy"], known["happy"][1:])


def test_among_equally_clear_faces_the_draw_is_the_same_every_time_and_not_the_first_ones():
    units, _ = faces()
    probs = np.eye(7)[np.zeros(len(units), int)]
    picked = clearest_faces(units, probs, 20)
    np.testing.assert_array_equal(picked["neutral"], clearest_faces(units, probs, 20)["neutral"])
    assert picked["neutral"][:, 5].max() > 0.5
    assert not len(picked["happy"])
