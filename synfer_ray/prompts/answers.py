"""What a language model answered, as a caption or prompt: cleaned, and refused if it is none."""

import re
import unicodedata

from synfer_ray.prompts.lint import names_expression, names_other_expression

MIN_WORDS = 5
_THOUGHTS_END = "</think>"
_LEAD = re.compile(r"^(?:\*\*)?(?:caption|prompt|description|answer)(?:\*\*)?\s*:\s*(?:\*\*)?", re.IGNORECASE)
_PLAIN = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": "..."})
_REFUSAL = re.compile(
    r"\b(?:i'?m|i am) (?:sorry|afraid|not able|unable)\b"
    r"|\bi (?:cannot|can not|can'?t|won'?t|don'?t|do not|must decline)\b"
    r"|\bas an? (?:ai|language model)\b|\bmy guidelines\b"
    r"|\b(?:unable|not possible) to (?:identify|describe|determine|help|assist)\b",
    re.IGNORECASE,
)
_STRANGE = re.compile(r"[^A-Za-z0-9 ,.;:'\"()/&%!?-]")


def tidy(answer: str) -> str:
    """Returns the answer as one line, without thoughts, a leading `Caption:`, quotes, accents, typography."""
    letters = unicodedata.normalize("NFKD", answer.rpartition(_THOUGHTS_END)[2]).translate(_PLAIN)
    text = "".join(letter for letter in letters if not unicodedata.combining(letter))
    text = _LEAD.sub("", " ".join(text.split()))
    for quote in ('"', "'", "`"):
        if len(text) > 1 and text[0] == text[-1] == quote:
            text = text[1:-1]
    return text.strip(" ,;")


def fault_of(text: str, expression: str | None, max_words: int) -> tuple[str, str]:
    """Returns why a text is no caption of this expression, and a detail; ("", "") if it is one.

    The faults: `refusal`, `too_short`, `too_long`, `garbled` (markup or another script), `other_expression`
    and `no_expression` (it is not named; the model would learn, or be asked for, nothing).

    Args:
        text: as `tidy` returns it.
        expression: basic or compound; None if the text may name no expression at all.

    Raises:
        InputError: the expression is unknown.
    """
    words = len(text.split())
    if refusal := _REFUSAL.search(text):
        return "refusal", refusal[0]
    if words < MIN_WORDS:
        return "too_short", f"{words} words"
    if words > max_words:
        return "too_long", f"{words} words"
    if strange := _STRANGE.search(text):
        return "garbled", repr(text[strange.start() :][:20])
    if other := names_other_expression(text, expression):
        return "other_expression", other
    if expression and not names_expression(text, expression):
        return "no_expression", expression
    return "", ""
