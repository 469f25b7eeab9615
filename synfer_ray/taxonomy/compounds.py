"""Compound expressions: two basic ones on one face (Du, Tao & Martinez 2014; RAF-DB's compound set)."""

from dataclasses import dataclass

from synfer_ray.errors import choose
from synfer_ray.taxonomy.expressions import ALIASES, EXPRESSIONS, clean_name


@dataclass(frozen=True)
class CompoundExpression:
    """A named blend of two basic expressions; where one outweighs the other it stands first."""

    name: str
    components: tuple[str, str]


RAF_COMPOUND_ORDER = (
    "happily surprised",
    "happily disgusted",
    "sadly fearful",
    "sadly angry",
    "sadly surprised",
    "sadly disgusted",
    "fearfully angry",
    "fearfully surprised",
    "fearfully disgusted",
    "angrily surprised",
    "angrily disgusted",
    "disgustedly surprised",
    "happily fearful",
    "happily sad",
)
"""RAF-DB's compound classes in label order. The last two are not among those of Du 2014."""

_ADVERBS = {
    "happily": "happy",
    "sadly": "sad",
    "fearfully": "fear",
    "angrily": "anger",
    "disgustedly": "disgust",
}


def _parts(name: str) -> tuple[str, str]:
    adverb, adjective = name.split()
    return _ADVERBS[adverb], ALIASES.get(adjective, adjective)


COMPOUND_EXPRESSIONS: dict[str, CompoundExpression] = {
    **{name: CompoundExpression(name, _parts(name)) for name in RAF_COMPOUND_ORDER},
    "appalled": CompoundExpression("appalled", ("disgust", "anger")),
    "hatred": CompoundExpression("hatred", ("anger", "disgust")),
    "awed": CompoundExpression("awed", ("surprise", "fear")),
}


def parse_any_expression(name: str) -> str:
    """Returns the basic or compound expression that `name` means (`Happily_Surprised`, `angry`).

    Raises:
        InputError: if it means none, with the nearest name and the choices.
    """
    name = clean_name(name)
    return choose(ALIASES.get(name, name), (*EXPRESSIONS, *COMPOUND_EXPRESSIONS), "expression")


def components_of(expression: str) -> tuple[str, ...]:
    """Returns the basic expressions in it: two for a compound one, itself for a basic one.

    Raises:
        InputError: if the expression is unknown.
    """
    expression = parse_any_expression(expression)
    compound = COMPOUND_EXPRESSIONS.get(expression)
    return compound.components if compound else (expression,)
