import numpy as np
import pytest

from synfer_ray.evaluation.action_units import action_unit_f1, macro_f1
from synfer_ray.taxonomy.action_units import au_vector


def rows(*dicts: dict[str, float]) -> np.ndarray:
    return np.stack([au_vector(values) for values in dicts])


def test_f1_by_hand() -> None:
    requested = rows({"AU12": 0.8, "AU06": 0.6}, {"AU12": 1.0}, {"AU04": 0.9}, {})
    found = rows({"AU12": 0.7}, {"AU12": 0.5, "AU04": 0.6}, {"AU04": 0.8}, {"AU12": 0.9, "AU01": 0.4})
    scores = action_unit_f1(requested, found)
    # AU12: 2 hits, 1 false alarm; AU06: missed; AU04: 1 hit, 1 false alarm; AU01 stays under the threshold
    assert scores == pytest.approx({"AU12": 4 / 5, "AU06": 0.0, "AU04": 2 / 3})
    assert macro_f1(requested, found) == pytest.approx((4 / 5 + 0 + 2 / 3) / 3)


def test_unknown_values_count_on_neither_side() -> None:
    requested = rows({"AU12": 1.0, "AU04": np.nan}, {"AU12": 1.0, "AU09": 1.0})
    found = rows({"AU12": 1.0, "AU04": 1.0}, {"AU12": 1.0, "AU09": np.nan})
    assert action_unit_f1(requested, found) == {"AU12": 1.0}


def test_a_face_that_shows_nothing_scores_zero() -> None:
    assert macro_f1(rows({"AU12": 1.0}), rows({})) == 0.0


def test_an_action_unit_that_nobody_asked_for_has_no_score() -> None:
    requested, found = rows({"AU12": 1.0}, {}), rows({"AU12": 1.0, "AU25": 0.9}, {"AU25": 0.7})
    assert action_unit_f1(requested, found) == {"AU12": 1.0}
    assert np.isnan(macro_f1(rows({}), rows({"AU25": 0.9})))
