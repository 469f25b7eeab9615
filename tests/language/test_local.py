import io
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

from synfer_ray.config import LanguageModelConfig
from synfer_ray.errors import InputError
from synfer_ray.language.local import LocalModel, RowNoise
from synfer_ray.language.questions import Question
from tests.faces.pictures import png
from tests.language.tiny_models import save_tiny_qwen_model, save_tiny_text_model, save_tiny_vision_model

TOKENS = 24


@pytest.fixture(scope="module")
def text_model(tmp_path_factory) -> Path:
    return save_tiny_text_model(tmp_path_factory.mktemp("text"))


@pytest.fixture(scope="module")
def vision_model(tmp_path_factory) -> Path:
    return save_tiny_vision_model(tmp_path_factory.mktemp("vision"))


@pytest.fixture(scope="module")
def qwen_model(tmp_path_factory) -> Path:
    return save_tiny_qwen_model(tmp_path_factory.mktemp("qwen"))


def load(folder: Path, sees: bool = False, **changes) -> LocalModel:
    settings = {"kind": "transformers", "model": str(folder), "max_new_tokens": TOKENS, "batch_size": 4}
    return LocalModel(LanguageModelConfig(**settings | changes), folder, sees)


def texts(count: int) -> list[Question]:
    return [Question("a photo of " + "happy " * (i % 4), seed=i) for i in range(count)]


def pictures(count: int) -> list[Question]:
    return [Question("a photo of " + "happy " * (i % 3), i, png(i)) for i in range(count)]


def test_row_noise_draws_from_the_models_distribution():
    logits = torch.tensor([1.0, 0.0, -1.0, 2.0, float("-inf")])
    draws = 4000
    noisy = RowNoise(range(draws))(torch.zeros(draws, 1), logits.expand(draws, -1))
    counts = torch.bincount(noisy.argmax(dim=1), minlength=5) / draws
    assert counts == pytest.approx(logits.softmax(dim=0), abs=4 * (0.25 / draws) ** 0.5)
    again = RowNoise([3, 1])(torch.zeros(2, 1), logits.expand(2, -1))
    assert torch.equal(again, noisy[[3, 1]])


@pytest.mark.parametrize("kind", ["text", "vision", "qwen"])
def test_a_rows_answer_follows_from_its_question_and_seed_alone(request, kind):
    sees = kind != "text"
    model = load(request.getfixturevalue(f"{kind}_model"), sees)
    questions = pictures(9) if sees else texts(9)
    together = model.ask(questions)
    assert [model.ask([question])[0] for question in reversed(questions)][::-1] == together
    other_seeds = [Question(each.text, each.seed + 100, each.image) for each in questions]
    assert model.ask(other_seeds) != together
    assert len({answer.text for answer in together}) > 5


def test_at_no_temperature_it_writes_what_the_library_writes(text_model):
    tokenizer = AutoTokenizer.from_pretrained(text_model)
    reference = AutoModelForCausalLM.from_pretrained(text_model)
    for question, answer in zip(texts(4), load(text_model, temperature=0).ask(texts(4))):
        chat = [{"role": "user", "content": question.text}]
        inputs = tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        tokens = reference.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)[0]
        new = tokens[inputs["input_ids"].shape[1] :]
        assert answer.text == tokenizer.decode(new, skip_special_tokens=True)
        assert answer.fault == ("" if tokenizer.eos_token_id in new else "unfinished")


def test_the_picture_is_looked_at(vision_model):
    processor = AutoProcessor.from_pretrained(vision_model)
    reference = AutoModelForImageTextToText.from_pretrained(vision_model)
    found = load(vision_model, sees=True, temperature=0).ask(pictures(6))
    for question, answer in zip(pictures(6), found):
        picture = Image.open(io.BytesIO(question.image))
        inputs = processor(images=picture, text=f"<s> <image> {question.text} photo", return_tensors="pt")
        tokens = reference.generate(**inputs, max_new_tokens=TOKENS, do_sample=False)[0]
        new = tokens[inputs["input_ids"].shape[1] :]
        assert answer.text == processor.decode(new, skip_special_tokens=True)


@pytest.mark.parametrize("kind", ["vision", "qwen"])
def test_other_pictures_get_other_answers(request, kind):
    model = load(request.getfixturevalue(f"{kind}_model"), sees=True)
    assert (
        len({answer.text for answer in model.ask([Question("a photo of", 1, png(i)) for i in range(6)])}) > 1
    )


def test_half_precision_takes_pictures_too(vision_model):
    assert all(answer.text for answer in load(vision_model, sees=True, dtype="bfloat16").ask(pictures(3)))


def test_unfinished_answers_are_told_apart(text_model):
    faults = Counter(answer.fault for answer in load(text_model).ask(texts(40)))
    assert set(faults) == {"", "unfinished"}


def test_a_model_without_a_chat_template_is_refused(tmp_path):
    with pytest.raises(InputError, match="no chat template"):
        load(save_tiny_text_model(tmp_path, template=None))


def test_weights_that_do_not_fit_are_refused(text_model, tmp_path):
    folder = Path(shutil.copytree(text_model, tmp_path / "deeper"))
    settings = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 2}
    (folder / "config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match=r"missing keys: model\.layers\.1"):
        load(folder)


def test_pickles_and_code_are_not_touched(text_model, tmp_path):
    folder = Path(shutil.copytree(text_model, tmp_path / "pickled"))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(InputError, match="cannot be loaded"):
        load(folder)
    coded = Path(shutil.copytree(text_model, tmp_path / "coded"))
    canary = tmp_path / "executed"
    (coded / "modeling.py").write_text(f"open({str(canary)!r}, 'w')")
    settings = json.loads((coded / "config.json").read_text()) | {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "modeling.Config", "AutoModelForCausalLM": "modeling.Model"},
    }
    (coded / "config.json").write_text(json.dumps(settings))
    with pytest.raises(InputError, match="cannot be loaded"):
        load(coded)
    assert not canary.exists()
