import pytest

from synfer_ray.errors import InputError
from synfer_ray.taxonomy.compounds import (
    COMPOUND_EXPRESSIONS,
    RAF_COMPOUND_ORDER,
    components_of,
    parse_any_expression,
)
from synfer_ray.taxonomy.expressions import EXPRESSIONS, parse_expression


def test_du_2014_and_raf_db_together():
    """Du 2014 has 22 categories less six basic ones and neutral; RAF-DB shares 12 others and adds two."""
    assert len(COMPOUND_EXPRESSIONS) == 15 + 2
    assert len(RAF_COMPOUND_ORDER) == 14
    assert set(COMPOUND_EXPRESSIONS) - set(RAF_COMPOUND_ORDER) == {"appalled", "hatred", "awed"}


@pytest.mark.parametrize("name", RAF_COMPOUND_ORDER)
def test_components_follow_the_two_words_of_the_name(name):
    adverb, adjective = name.split()
    stem = {"happ": "happy", "sadl": "sad", "fear": "fear", "angr": "anger", "disg": "disgust"}[adverb[:4]]
    assert components_of(name) == (stem, parse_expression(adjective))


def test_components():
    assert components_of("hatred") == ("anger", "disgust")
    assert components_of("appalled") == ("disgust", "anger")
    assert components_of("angry") == ("anger",)
    for compound in COMPOUND_EXPRESSIONS.values():
        assert len(set(compound.components)) == 2
        assert set(compound.components) < set(EXPRESSIONS)


def test_parse_any_expression():
    assert parse_any_expression("Happily_Surprised") == "happily surprised"
    assert parse_any_expression("fearfully-angry") == "fearfully angry"
    assert parse_any_expression("Joy") == "happy"
    with pytest.raises(InputError, match="did you mean 'happily sad'"):
        parse_any_expression("happly sad")
