from hypothesis import given
from hypothesis import strategies as st

from synfer_ray.faces.duplicates import Duplicate, FaceHash, find_duplicates


def test_the_first_row_stays_whatever_the_order():
    hashes = [FaceHash(7, "a", 1), FaceHash(2, "a", 1), FaceHash(5, "b", 1), FaceHash(9, "c", 3)]
    expected = {7: Duplicate("exact_duplicate", 2), 5: Duplicate("near_duplicate", 2)}
    assert find_duplicates(hashes) == expected
    assert find_duplicates(hashes[::-1]) == expected


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 3)), max_size=30))
def test_what_stays_is_unique_and_what_goes_points_at_a_row_that_stays(pairs):
    hashes = [FaceHash(index, *pair) for index, pair in enumerate(pairs)]
    duplicates = find_duplicates(hashes)
    kept = [face for face in hashes if face.index not in duplicates]
    assert len({face.pixels for face in kept}) == len(kept) == len({face.perceptual for face in kept})
    by_index = {face.index: face for face in hashes}
    for index, (reason, original) in duplicates.items():
        field = "pixels" if reason == "exact_duplicate" else "perceptual"
        assert getattr(by_index[index], field) == getattr(by_index[original], field)
        assert original < index
        assert original not in duplicates
