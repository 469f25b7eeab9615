"""A CLIP tokenizer whose small vocabulary is learned from the caption grammar."""

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import CLIPTokenizer


def new_tokenizer(texts: Sequence[str], length: int, vocabulary_size: int = 2048) -> "CLIPTokenizer":
    """Learns byte-pair merges from `texts`; every frequent word becomes one token.

    Args:
        texts: captions that cover the words to come; other words still encode, byte by byte.
        length: number of tokens that prompts are padded or cut to.
    """
    from tokenizers import pre_tokenizers, trainers
    from transformers import CLIPTokenizer

    special = ["<|startoftext|>", "<|endoftext|>"]
    empty = CLIPTokenizer(vocab={token: index for index, token in enumerate(special)}, merges=[])
    learner = empty.backend_tokenizer
    learner.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocabulary_size,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            end_of_word_suffix="</w>",
            show_progress=False,
        ),
    )
    merges = [tuple(merge) for merge in json.loads(learner.to_str())["model"]["merges"]]
    # a last letter that ends no word of `texts` still needs its end-of-word form
    endings = {f"{letter}</w>" for letter in pre_tokenizers.ByteLevel.alphabet()}
    tokens = sorted({*learner.get_vocab(), *endings} - {*special})  # the trainer numbers them at random
    vocabulary = {token: index for index, token in enumerate([*special, *tokens])}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=length)
