"""Prompts and captions by models in whole jobs, on a local Ray."""

import json
from dataclasses import replace
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import SecretStr

from synfer_ray.config import FETextConfig, GenerateConfig, LanguageModelConfig, PoolConfig
from synfer_ray.errors import InputError
from synfer_ray.fetext import build_fetext
from synfer_ray.pipeline import generate, make_plan
from synfer_ray.prompts import names_other_expression
from synfer_ray.prompts.answers import fault_of
from synfer_ray.stages.enricher import Enricher
from synfer_ray.stages.planner import Planner
from synfer_ray.storage.bundle import find_bundle
from synfer_ray.storage.manifest import read_manifest, read_run
from synfer_ray.storage.verify import verify
from synfer_ray.taxonomy.expressions import EXPRESSIONS
from tests.faces.pictures import png
from tests.jobs.runs import rows_of, small_job
from tests.language.chat_server import (
    KEY,
    MODEL,
    Body,
    Reply,
    chat_server,
    completion,
    facts,
    well_behaved,
)
from tests.language.tiny_models import save_tiny_vision_model

pytestmark = pytest.mark.usefixtures("two_cpus")
ROWS, TOKEN_ENV = 14, "SYNFER_TEST_KEY"


def moody(body: Body) -> Reply:
    """Refuses the sad, mistakes the angry, and is well behaved to the others."""
    expression = facts(body).split(";")[0]
    if "sad" in expression:
        return completion("I'm sorry, I cannot help with this face")
    return completion("a calm man in a portrait") if "anger" in expression else well_behaved(body)


def prompts_of(output: Path) -> dict[int, tuple[str, str]]:
    rows = {index: json.loads(row["row"]) if "row" in row else row for index, row in rows_of(output).items()}
    return {index: (row["prompt"], row["prompt_writer"]) for index, row in rows.items()}


@pytest.fixture(scope="module")
def server():
    with chat_server(moody) as running:
        yield running


@pytest.fixture(scope="module", autouse=True)
def key():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(TOKEN_ENV, KEY)
        yield


@pytest.fixture(scope="module")
def config(tmp_path_factory, server) -> GenerateConfig:
    enricher = LanguageModelConfig(
        kind="endpoint", model=MODEL, url=server.url, token_env=TOKEN_ENV, retries=0
    )
    folder = tmp_path_factory.mktemp("enriched")
    return small_job(
        folder, num_images=ROWS, voters=["feranno"], enricher=enricher, batch_size=7, shard_rows=7
    )


@pytest.fixture(scope="module")
def generated(config, server) -> Path:
    generate(config)
    return Path(config.output)


def test_rows_say_who_worded_their_prompt_and_the_manifest_counts(generated):
    manifest = read_manifest(generated)
    assert manifest.writers == {MODEL: 10, "template: refusal": 2, "template: other_expression": 2}
    assert manifest.totals["rows"] + manifest.totals["rejects"] == ROWS
    assert verify(generated) == []
    for row in rows_of(generated).values():
        planned = json.loads(row["row"]) if "row" in row else row
        expression = EXPRESSIONS[planned["assigned_label"]]
        source = {"sad": "template: refusal", "anger": "template: other_expression"}.get(expression, MODEL)
        assert planned["prompt_writer"] == source
        assert names_other_expression(planned["prompt"], expression) is None
        assert (f"number {planned['seed'] % 2**31}" in planned["prompt"]) == (source == MODEL)


def test_the_key_is_in_no_file(generated, server):
    assert {headers["authorization"] for headers in server.headers} == {f"Bearer {KEY}"}
    files = [path for path in generated.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert read_run(generated)["config"]["enricher"]["token_env"] == TOKEN_ENV


def test_it_loads_as_a_dataset(generated, tmp_path):
    files = [str(path) for path in generated.glob("data/*.parquet")]
    data = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path))
    assert "prompt_writer" in data.column_names


def test_who_continues_the_run_finds_the_same_prompts_and_asks_nobody(generated, config):
    plan = make_plan(config, find_bundle(config.bundle))
    gone = replace(config, enricher=replace(config.enricher, url="http://127.0.0.1:9/v1"))
    second_shard = Planner(plan)(pa.table({"index": range(7, ROWS)}))
    found = Enricher(gone, plan.models["enricher"], SecretStr(""))(second_shard).to_pylist()
    prompts = {row["index"]: (row["prompt"], row["prompt_writer"]) for row in found}
    assert prompts == {index: prompts_of(generated)[index] for index in range(7, ROWS)}


def test_another_model_is_another_plan(generated, config):
    changed = replace(config, enricher=replace(config.enricher, model="another"))
    with pytest.raises(InputError, match=f'enricher.model: "{MODEL}" -> "another"'):
        generate(changed)
    with pytest.raises(InputError, match="enricher"):
        generate(replace(config, enricher=LanguageModelConfig()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kind": "endpont"}, "enricher.kind 'endpont' .did you mean 'endpoint'"),
        ({"model": ""}, "needs enricher.model"),
        ({"url": "ftp://host/v1"}, "enricher.url='ftp://host/v1'"),
        ({"url": "http://user:secret@host/v1"}, "not of the form"),
        ({"url": ""}, "not of the form"),
        ({"token_env": "SYNFER_ABSENT"}, "SYNFER_ABSENT, named by token_env, is not set"),
        ({"retries": -1}, "enricher.retries=-1"),
        ({"temperature": -0.5}, "enricher.temperature=-0.5"),
        ({"temperature": float("nan")}, "enricher.temperature=nan"),
        ({"top_p": 0.0}, "enricher.top_p=0.0"),
        ({"kind": "transformers", "model": "/absent", "dtype": "float8"}, "enricher.dtype 'float8'"),
        ({"kind": "transformers", "model": "/absent"}, "'/absent' is neither a folder"),
    ],
)
def test_bad_settings_are_named(config, tmp_path, changes, message):
    wrong = replace(config, output=str(tmp_path / "out"), enricher=replace(config.enricher, **changes))
    with pytest.raises(InputError, match=message):
        generate(wrong)
    assert not (tmp_path / "out").exists()


def test_llava_captions_faces_and_its_rejects_are_counted(tmp_path):
    """It has words for happy faces alone."""
    for index in range(12):
        path = tmp_path / "faces" / ("happy" if index < 10 else "sad") / f"{index:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(index))
    model, output = save_tiny_vision_model(tmp_path / "llava"), tmp_path / "out"
    captioner = LanguageModelConfig(
        kind="transformers", model=str(model), temperature=1.5, top_p=1.0, max_new_tokens=100, max_words=80
    )
    config = FETextConfig(
        input=str(tmp_path / "faces"),
        output=str(output),
        au_labeler="none",
        align=False,
        image_size=32,
        captioner=captioner,
        face_pool=PoolConfig(min_actors=1),
    )
    build_fetext(config)
    manifest = read_manifest(output)
    (shard,) = output.glob("data/*.parquet")
    captions = pq.read_table(shard).to_pylist()
    assert manifest.writers == {"llava": len(captions)} and 5 <= len(captions) <= 10
    assert {row["caption_writer"] for row in captions} == {"llava"}
    assert len({row["caption"] for row in captions}) == len(captions)
    assert all(fault_of(row["caption"], "happy", 80) == ("", "") for row in captions)
    assert manifest.reject_reasons.keys() & {"other_expression", "unfinished", "too_short"}
    assert manifest.totals["rejects"] == 12 - len(captions)
    assert verify(output) == []
    assert not {"model", "url", "timeout", "pool", "token_env"} & set(manifest.plan["captioner"])
    with pytest.raises(InputError, match=r"captioner\.temperature: 1\.5 -> 0\.1"):
        build_fetext(replace(config, captioner=replace(captioner, temperature=0.1)))
    config_file = model / "generation_config.json"
    config_file.write_text(config_file.read_text() + " ")
    with pytest.raises(InputError, match=r"models\.captioner"):
        build_fetext(config)
