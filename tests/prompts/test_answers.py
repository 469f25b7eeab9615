import pytest
from hypothesis import given
from hypothesis import strategies as st

from synfer_ray.errors import InputError
from synfer_ray.prompts.answers import fault_of, tidy

CAPTION = "a happy woman with raised cheeks, facing the camera"


@pytest.mark.parametrize(
    "answer",
    [
        CAPTION,
        f'"{CAPTION}"',
        f"“{CAPTION}”\n",
        f"Caption: {CAPTION}",
        f"**Prompt:** {CAPTION}",
        f"<think>She looks sad. No:\nhappy.</think>\n\n{CAPTION}",
        f"The user wants a caption.</think>{CAPTION}",
        f" {CAPTION} ,",
        CAPTION.replace(" ", "\u00a0\n"),
    ],
)
def test_tidy_leaves_the_caption(answer):
    assert tidy(answer) == CAPTION
    assert fault_of(tidy(answer), "happy", 20) == ("", "")


@given(st.text(max_size=200))
def test_tidy_is_one_line_and_stable_whatever_comes(answer):
    text = tidy(answer)
    assert text == " ".join(text.split())
    assert len(fault_of(text, "happy", 20)) == 2


@pytest.mark.parametrize(
    ("answer", "expression", "fault"),
    [
        ("", "happy", ("too_short", "0 words")),
        ("a happy woman", "happy", ("too_short", "3 words")),
        ("a happy woman " * 10, "happy", ("too_long", "30 words")),
        ("I'm sorry, but I cannot describe the person in this image", "sad", ("refusal", "I'm sorry")),
        ("I’m sorry, I can’t help with that picture of a face", "sad", ("refusal", "I'm sorry")),
        ("As an AI I look at the picture of a sad face", "sad", ("refusal", "As an AI")),
        ("It is not possible to determine a sad face here", "sad", ("refusal", "not possible to determine")),
        ("a happy woman, not sad at all, before a wall", "happy", ("other_expression", "sad")),
        ("a woman with raised brows before a plain wall", "happy", ("no_expression", "happy")),
        ("a smiling woman with raised brows before a wall", None, ("other_expression", "smiling")),
        ("a happy woman {with} raised brows before a wall", "happy", ("garbled", "'{with} raised brows '")),
        ("a happy woman 快乐的女人 with raised brows", "happy", ("garbled", "'快乐的女人 with raised br'")),
    ],
)
def test_what_is_no_caption(answer, expression, fault):
    assert fault_of(tidy(answer), expression, 20) == fault


@pytest.mark.parametrize(
    ("text", "expression"),
    [
        ("a happily surprised man with raised brows", "happily surprised"),
        ("a man with a glad look and raised brows", "happily surprised"),
        ("a man with raised brows before a wall", None),
        (tidy("a déjà vu: a sad man at a café, naïve"), "sad"),
        ("a close-up (35 mm) of a young man's furious face; 50% grey wall", "anger"),
    ],
)
def test_what_is_one(text, expression):
    assert fault_of(text, expression, 20) == ("", "")


def test_an_unknown_expression_is_named():
    with pytest.raises(InputError, match="hapy"):
        fault_of(CAPTION, "hapy", 20)
