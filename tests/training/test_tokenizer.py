import pytest

from synfer_ray.prompts.caption import vocabulary
from synfer_ray.training.tokenizer import new_tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return new_tokenizer(vocabulary(), 48)


def test_the_same_texts_give_the_same_numbers(tokenizer):
    assert all(new_tokenizer(vocabulary(), 48).get_vocab() == tokenizer.get_vocab() for _ in range(3))


def test_a_word_of_the_grammar_is_one_token(tokenizer):
    assert tokenizer.tokenize("a photo of a happy person, brows raised") == [
        f"{word}</w>" for word in ("a", "photo", "of", "a", "happy", "person", ",", "brows", "raised")
    ]


def test_any_other_word_is_spelt(tokenizer):
    spelt = tokenizer("quixotic", add_special_tokens=False).input_ids
    assert tokenizer.decode(spelt).strip() == "quixotic"
    assert len(spelt) > 1
