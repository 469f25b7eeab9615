"""A model of the transformers library in this process: batches of rows that draw with a seed of their own."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from synfer_ray.config import LanguageModelConfig
from synfer_ray.errors import InputError
from synfer_ray.language.questions import UNFINISHED, Answer, Question


class RowNoise:
    """Makes the likeliest token of each row a draw with the row's own seed: the Gumbel-max trick.

    `argmax(logits + g)` with Gumbel noise g follows `softmax(logits)`. A row's draws do not depend on who
    else is in its batch, as those of the library's own sampling would.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self.generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Adds noise to the logits [B, tokens] of the next token."""
        uniform = torch.stack([torch.rand(scores.shape[1], generator=each) for each in self.generators])
        gumbel = -(-uniform.clamp(1e-20).log()).clamp(1e-20).log()
        return scores.float() + gumbel.to(scores.device)


class LocalModel:
    """A causal language model, or one that sees, with its tokenizer or processor.

    Args:
        folder: config, safetensors, tokenizer with a chat template and, if it sees, an image processor.
        sees: whether questions come with images.

    Raises:
        InputError: the model needs code or pickles, a library that is absent, does not fit its configuration,
            or has no chat template.
    """

    def __init__(self, config: LanguageModelConfig, folder: Path, sees: bool) -> None:
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        torch.set_num_threads(config.num_threads)
        self.config = config
        self.device = "cuda" if config.pool.num_gpus else "cpu"
        model_class, load_reader = (
            (transformers.AutoModelForImageTextToText, load_processor)
            if sees
            else (transformers.AutoModelForCausalLM, transformers.AutoTokenizer.from_pretrained)
        )
        here = {"local_files_only": True, "trust_remote_code": False}
        try:
            self.reader = load_reader(folder, **here)
            model, report = model_class.from_pretrained(
                folder,
                dtype=getattr(torch, config.dtype),
                use_safetensors=True,
                output_loading_info=True,
                **here,
            )
        except (OSError, ValueError, KeyError, TypeError, ImportError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:300]
            raise InputError(f"{config.model} cannot be loaded by transformers: {reason}") from error
        if lacking := sorted(map(str, report["missing_keys"])):
            raise InputError(
                f"{config.model}: missing keys: {', '.join(lacking[:5])} ({len(lacking)} in all)"
            )
        if not getattr(self.reader, "chat_template", None):
            raise InputError(
                f"{config.model} has no chat template: take a model that was tuned for instructions"
            )
        self.model = model.to(self.device).eval()
        self.sees = sees
        self.tokenizer = self.reader.tokenizer if sees else self.reader
        self.tokenizer.padding_side = "left"
        if self.tokenizer.pad_token is None:
            self.tokenizer.pad_token = self.tokenizer.eos_token

    def ask(self, questions: Sequence[Question]) -> list[Answer]:
        """Answers in batches of `batch_size`, in order."""
        size = self.config.batch_size
        batches = [questions[first : first + size] for first in range(0, len(questions), size)]
        return [answer for batch in batches for answer in self._answer(batch)]

    def _answer(self, questions: Sequence[Question]) -> list[Answer]:
        inputs = self.reader.apply_chat_template(
            [self._chat(question) for question in questions],
            tokenize=True,
            add_generation_prompt=True,
            return_dict=True,
            return_tensors="pt",
            **({"processor_kwargs": {"padding": True}} if self.sees else {"padding": True}),
        ).to(self.device)
        for name, value in inputs.items():
            if value.is_floating_point():
                inputs[name] = value.to(self.model.dtype)
        with torch.inference_mode():
            tokens = self.model.generate(
                **inputs,
                max_new_tokens=self.config.max_new_tokens,
                do_sample=False,
                num_beams=1,
                logits_processor=self._draw(questions),
                pad_token_id=self.tokenizer.pad_token_id,
            )
        new = tokens[:, inputs["input_ids"].shape[1] :].cpu()
        texts = self.tokenizer.batch_decode(new, skip_special_tokens=True)
        ends = torch.tensor(_ends(self.model, self.tokenizer))
        finished = torch.isin(new, ends).any(dim=1).tolist()
        return [Answer(text, "" if end else UNFINISHED) for text, end in zip(texts, finished)]

    def _chat(self, question: Question) -> list[dict[str, Any]]:
        if question.image is None:
            return [{"role": "user", "content": question.text}]
        picture = Image.open(io.BytesIO(question.image)).convert("RGB")
        parts = [{"type": "image", "image": picture}, {"type": "text", "text": question.text}]
        return [{"role": "user", "content": parts}]

    def _draw(self, questions: Sequence[Question]) -> Any:
        from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

        if not self.config.temperature:
            return LogitsProcessorList()
        return LogitsProcessorList(
            [
                TemperatureLogitsWarper(self.config.temperature),
                TopPLogitsWarper(self.config.top_p),
                RowNoise([question.seed for question in questions]),
            ]
        )


def load_processor(folder: Path, **options: Any) -> Any:
    """Loads what prepares text and pictures for a model; Qwen-VL's part for videos may need what is absent.

    Raises:
        ImportError, KeyError: a library that pictures need is absent, or the library knows no such processor.
    """
    from transformers import AutoConfig, AutoProcessor
    from transformers.models.auto.processing_auto import PROCESSOR_MAPPING

    try:
        return AutoProcessor.from_pretrained(folder, **options)
    except ImportError:
        whole: Any = PROCESSOR_MAPPING[type(AutoConfig.from_pretrained(folder, **options))]

    class PictureProcessor(whole):  # type: ignore[misc]
        @classmethod
        def get_attributes(cls) -> list[str]:
            return [name for name in super().get_attributes() if name != "video_processor"]

    return PictureProcessor.from_pretrained(folder, **options)


def _ends(model: Any, tokenizer: Any) -> list[int]:
    """The tokens that end an answer."""
    ends = model.generation_config.eos_token_id
    all_ends = [tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])]
    return [end for end in all_ends if end is not None]
