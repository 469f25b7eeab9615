from hypothesis import given
from hypothesis import strategies as st

from synfer_ray.faces.duplicates import Duplicate, FaceHash, find_duplicates


def test_the_first_row_stays_whatever_the_order():
    hashes = [FaceHash(7, "a", 1), FaceHash(2, "a", 1), FaceHash(5, "b", 1), FaceHash(9, "c", 3)]
    expected = {7: Duplicate("exact_duplicate", 2), 5: Duplicate("near_duplicate", 2)}
    assert find_duplicates(hashes) == expected
    assert find_duplicates(hashes[::-1]) == expected


@given(st.text("abcdef", max_size=30))
def test_what_stays_is_unique_and_what_goes_points_at_a_row_that_stays(pictures):
    """a and b look alike, as do c and d, and e and f."""
    hashes = [
        FaceHash(index, picture, (ord(picture) - ord("a")) // 2) for index, picture in enumerate(pictures)
    ]
    duplicates = find_duplicates(hashes)
    kept = [face for face in hashes if face.index not in duplicates]
    assert len(kept) == len({face.perceptual for face in hashes})
    for index, (reason, original) in duplicates.items():
        seen_before = hashes[index].pixels in pictures[:index]
        assert reason == ("exact_duplicate" if seen_before else "near_duplicate")
        assert hashes[index].perceptual == hashes[original].perceptual
        assert hashes[original] in kept
