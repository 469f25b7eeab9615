import json
from dataclasses import asdict, replace

import pyarrow as pa
import pytest
from pydantic import SecretStr

from synfer_ray.config import GenerateConfig, LanguageModelConfig
from synfer_ray.errors import InputError
from synfer_ray.plan import Plan, plan_row
from synfer_ray.prompts import names_other_expression
from synfer_ray.prompts.cues import CUES
from synfer_ray.stages.attempts import MAX_ATTEMPTS, Attempts
from synfer_ray.stages.enricher import ENRICH, Enricher
from synfer_ray.stages.planner import Planner
from synfer_ray.stages.sample_rows import sample_rows
from synfer_ray.taxonomy.expressions import EXPRESSIONS
from tests.language.chat_server import MODEL, chat_server, completion, facts, question, well_behaved

ROWS = 16


@pytest.fixture
def server():
    with chat_server() as running:
        yield running


@pytest.fixture
def config(server, tmp_path):
    enricher = LanguageModelConfig(kind="endpoint", model=MODEL, url=server.url, retries=0)
    quotas = {"gender": {"female": 1.0}, "accessory": {"glasses": 1.0}}
    return GenerateConfig(
        output=str(tmp_path), compound_share=0.25, attributes=quotas, enricher=enricher, shard_rows=ROWS
    )


def planned(config: GenerateConfig) -> list[dict]:
    plan = Plan(config, {"model": "m", "adapter": "a", "enricher": "e"})
    return [asdict(plan_row(plan, index)) for index in range(ROWS)]


def enriched(config: GenerateConfig, rows: list[dict]) -> list[dict]:
    return Enricher(config, "e", SecretStr(""))(sample_rows(rows, config.voters)).to_pylist()


def test_every_prompt_is_worded_for_its_row(config, server):
    rows = planned(config)
    found = enriched(config, rows)
    assert len({row["prompt"] for row in found}) == ROWS
    for before, after in zip(sample_rows(rows, config.voters).to_pylist(), found):
        expression = before["compound"] or EXPRESSIONS[before["assigned_label"]]
        assert after["prompt"] != before["prompt"]
        assert names_other_expression(after["prompt"], expression) is None
        assert after == before | {"prompt": after["prompt"], "prompt_writer": MODEL}
    assert all(facts(body).endswith("; facing the camera, woman, glasses") for body in server.bodies)
    assert len({body["seed"] for body in server.bodies}) == ROWS
    assert "photographer" in question(server.bodies[0])


def test_a_model_that_should_not_describe_action_units_is_not_told_of_them(config, server):
    for tell in (True, False):
        enriched(changed := replace(config, describe_action_units=tell), planned(changed))
        told = [cue.look in facts(body) for body in server.bodies for cue in CUES.values()]
        assert any(told) == tell
        server.bodies.clear()


def test_the_template_stays_where_the_answer_is_no_use_and_says_why(config, server):
    def reply(body):
        sad = "expression sad;" in facts(body) + ";"
        return completion("I cannot help with faces, sorry") if sad else well_behaved(body)

    server.reply = reply
    rows = planned(config)
    for before, after in zip(rows, enriched(config, rows)):
        is_sad = before["compound"] is None and EXPRESSIONS[before["assigned_label"]] == "sad"
        assert after["prompt_writer"] == ("template: refusal" if is_sad else MODEL)
        assert (after["prompt"] == before["prompt"]) == is_sad


def test_the_planner_leaves_the_source_open(config):
    plan = Plan(config, {"model": "m", "adapter": "a"})
    table = Planner(plan)(pa.table({"index": [0, 1]}))
    assert table["prompt_writer"].to_pylist() == [None, None]


def test_a_row_that_killed_the_model_twice_keeps_its_template(config, monkeypatch):
    monkeypatch.setattr("synfer_ray.stages.attempts.is_second_life", lambda: True)
    rows = planned(config)
    attempts = Attempts(config.output, ENRICH)
    for part in (rows, *([row] for row in rows[:1])):
        for _ in range(MAX_ATTEMPTS):
            attempts.begin(part)
    found = enriched(config, rows)
    assert [row["prompt_writer"] for row in found] == ["template: crashed", *[MODEL] * (ROWS - 1)]
    assert found[0]["prompt"] == rows[0]["prompt"]
    assert all(row["reason"] is None and row["stage"] is None for row in found)


def test_a_model_that_does_not_load_is_told_by_the_first_call(config, tmp_path):
    (tmp_path / "empty").mkdir()
    config.enricher = LanguageModelConfig(kind="transformers", model=str(tmp_path / "empty"))
    with pytest.raises(InputError, match="empty cannot be loaded"):
        enriched(config, planned(config))


def test_the_kept_answers_are_json_lines(config, tmp_path):
    enriched(config, planned(config))
    (file,) = (tmp_path / "answers").iterdir()
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert len(lines) == ROWS and set(lines[0]) == {"key", "text", "fault"}
