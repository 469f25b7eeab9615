"""The words that captions use for each expression: few, plain, and never shared by two expressions."""

from typing import NamedTuple

from synfer_ray.taxonomy.compounds import COMPOUND_EXPRESSIONS


class Wording(NamedTuple):
    """How to name an expression; the first word of each kind is the usual one.

    Adjectives fit both "a sad face" and "looking sad"; nouns fit "showing sadness".
    """

    adjectives: tuple[str, ...]
    nouns: tuple[str, ...]


BASIC_WORDINGS: dict[str, Wording] = {
    "neutral": Wording(("neutral", "expressionless", "calm"), ("calm",)),
    "happy": Wording(("happy", "cheerful", "joyful"), ("happiness", "joy")),
    "sad": Wording(("sad", "sorrowful", "gloomy"), ("sadness", "sorrow")),
    "surprise": Wording(("surprised", "astonished", "amazed"), ("surprise", "astonishment")),
    "fear": Wording(("fearful", "scared", "frightened", "terrified"), ("fear", "terror")),
    "disgust": Wording(("disgusted", "revolted", "repulsed"), ("disgust", "revulsion")),
    "anger": Wording(("angry", "furious", "enraged"), ("anger", "rage")),
}


def _blend(name: str, first: Wording, second: Wording) -> Wording:
    adjective = "hateful" if name == "hatred" else name
    return Wording(
        adjectives=(adjective, f"{first.adjectives[0]} and {second.adjectives[0]}"),
        nouns=(f"{first.nouns[0]} and {second.nouns[0]}",),
    )


WORDINGS: dict[str, Wording] = BASIC_WORDINGS | {
    name: _blend(name, *(BASIC_WORDINGS[component] for component in compound.components))
    for name, compound in COMPOUND_EXPRESSIONS.items()
}

OTHER_NAMES: dict[str, str] = {
    "neutral": "neutrally neutrality calmly deadpan impassive emotionless",
    "happy": """happily happier happiest joyfully joyous cheer cheerfully cheery glad gladly delight delighted
        pleased smile smiles smiled smiling grin grins grinning laugh laughs laughing laughter beaming elated
        merry""",
    "sad": """sadly sadder saddest saddened unhappy unhappily unhappiness sorry sorrowfully gloom miserable
        misery cry cries crying weep weeping tearful grief grieving mournful melancholy downcast dejected
        depressed heartbroken""",
    "surprise": """surprises surprising surprisedly amazement amazing astonishing astounded shock shocked
        stunned startled""",
    "fear": """fears fearfully afraid scary fright terrifying horror horrified panic panicked panicking
        anxious anxiety alarmed dread worried""",
    "disgust": "disgustedly disgusting revolting repulsion repelled nauseated sickened",
    "anger": "angrily angered mad fury furiously irate annoyed irritated outraged hostile scowl scowling",
    "contempt": "contempt contemptuous contemptuously scorn scornful disdain smirk smirking sneer sneering",
}
"""Further words that name an expression: not used in captions, but recognised in texts written elsewhere."""
