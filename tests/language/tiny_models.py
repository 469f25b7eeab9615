"""Real transformers models with random weights: a causal language model, and LLaVA, which sees."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlamaForCausalLM,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
WORDS = (
    *(
        "a",
        "the",
        "photo",
        "portrait",
        "of",
        "with",
        "face",
        "person",
        "woman",
        "man",
        "cheeks",
        "lips",
        "brows",
    ),
    *("raised", "parted", "hair", "light", "and", ",", "happy", "joyful", "cheerful", "happiness", "joy"),
)
"""All that these models can say: often a caption of a happy face, and never one of another."""
TEXT_TEMPLATE = "<s> {% for message in messages %}{{ message['content'] }} {% endfor %}photo"
IMAGE_TEMPLATE = (
    "<s> {% for message in messages %}{% for part in message['content'] %}"
    "{{ '<image>' if part['type'] == 'image' else part['text'] }} {% endfor %}{% endfor %}photo"
)


def tiny_tokenizer(template: str | None) -> PreTrainedTokenizerFast:
    """Words are tokens; what it does not know is `<unk>`."""
    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    pad, start, end, unknown, image = SPECIAL
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        bos_token=start,
        eos_token=end,
        unk_token=unknown,
        additional_special_tokens=[image],
    )
    wrapped.chat_template = template
    return wrapped


def save_tiny_text_model(folder: Path, template: str | None = TEXT_TEMPLATE) -> Path:
    """Writes a causal language model as it would lie on the hub."""
    torch.manual_seed(0)
    LlamaForCausalLM(LlamaConfig(**_text_settings())).save_pretrained(folder)
    tiny_tokenizer(template).save_pretrained(folder)
    return folder


def save_tiny_vision_model(folder: Path) -> Path:
    """Writes LLaVA with a CLIP vision tower of 16 pixels, as it would lie on the hub."""
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=LlamaConfig(**_text_settings()),
        image_token_index=SPECIAL.index("<image>"),
    )
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    size = {"height": 16, "width": 16}
    LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": 16}, crop_size=size),
        tokenizer=tiny_tokenizer(None),
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=IMAGE_TEMPLATE,
    ).save_pretrained(folder)
    return folder


def _text_settings() -> dict[str, Any]:
    return {
        "vocab_size": len(SPECIAL) + len(WORDS),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "initializer_range": 0.5,
    }
