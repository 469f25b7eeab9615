"""Real transformers models with random weights: a causal language model, LLaVA and Qwen2-VL, which see."""

import json
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
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
)

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
QWEN_SPECIAL = (*SPECIAL[:4], "<|image_pad|>", "<|vision_start|>", "<|vision_end|>", "<|video_pad|>")
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
QWEN_TEMPLATE = IMAGE_TEMPLATE.replace("<image>", "<|vision_start|> <|image_pad|> <|vision_end|>")


def tiny_tokenizer(template: str | None, special: tuple[str, ...] = SPECIAL) -> PreTrainedTokenizerFast:
    """Words are tokens; what it does not know is `<unk>`."""
    vocabulary = {word: number for number, word in enumerate((*special, *WORDS))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    pad, start, end, unknown, *images = special
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=pad,
        bos_token=start,
        eos_token=end,
        unk_token=unknown,
        additional_special_tokens=images,
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


def save_tiny_qwen_model(folder: Path) -> Path:
    """Writes Qwen2-VL for pictures of two by two tokens, as it would lie on the hub."""
    torch.manual_seed(0)
    image, start, end, video = range(4, 8)
    config = Qwen2VLConfig(
        text_config=_text_settings(QWEN_SPECIAL)
        | {"num_key_value_heads": 2, "rope_scaling": {"type": "mrope", "mrope_section": [1, 1, 2]}},
        vision_config={"depth": 1, "embed_dim": 32, "hidden_size": 16, "num_heads": 2, "mlp_ratio": 2},
        image_token_id=image,
        vision_start_token_id=start,
        vision_end_token_id=end,
        video_token_id=video,
    )
    Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    tiny_tokenizer(QWEN_TEMPLATE, QWEN_SPECIAL).save_pretrained(folder)
    Qwen2VLImageProcessor(min_pixels=4 * 28**2, max_pixels=4 * 28**2).save_pretrained(folder)
    names = {"image_processor_type": "Qwen2VLImageProcessor", "processor_class": "Qwen2VLProcessor"}
    settings = json.loads((folder / "preprocessor_config.json").read_text()) | names
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    return folder


def _text_settings(special: tuple[str, ...] = SPECIAL) -> dict[str, Any]:
    return {
        "vocab_size": len(special) + len(WORDS),
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "initializer_range": 0.5,
    }
