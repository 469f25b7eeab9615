import base64

import numpy as np
import pytest
from pydantic import SecretStr

from synfer_ray.config import FETextConfig, LanguageModelConfig
from synfer_ray.stages.face_rows import face_rows, face_table
from synfer_ray.stages.model_captioner import ModelCaptioner
from synfer_ray.taxonomy.action_units import au_vector
from tests.faces.pictures import png
from tests.language.chat_server import MODEL, chat_server, completion, facts

SMILE = au_vector({"AU12": 0.9}, fill=np.nan)


@pytest.fixture
def server():
    with chat_server() as running:
        yield running


def row(index: int, **columns) -> dict:
    return {"index": index, "sample_id": f"set/{index}", "image": png(index), "label": "happy"} | columns


def captioned(server, tmp_path, rows: list[dict], seed: int = 0) -> list[dict]:
    captioner = LanguageModelConfig(kind="endpoint", model=MODEL, url=server.url, retries=0)
    config = FETextConfig(input="", output=str(tmp_path), captioner=captioner, seed=seed)
    return face_rows(ModelCaptioner(config, "fingerprint", SecretStr(""))(face_table(rows)))


def test_the_model_sees_the_face_and_is_told_what_is_known(server, tmp_path):
    rows = [
        row(0, action_units=SMILE, attributes={"pose": "left"}),
        row(1, label=None),
        row(2, stage="filter", reason="blurred"),
    ]
    first, second, rejected = captioned(server, tmp_path, rows)
    assert first["caption"].startswith("a happy person") and first["caption_writer"] == MODEL
    assert second["caption"].startswith("a person") and np.isnan(second["action_units"]).all()
    assert (rejected["reason"], rejected["caption"], rejected["caption_writer"]) == ("blurred", None, None)
    known = {facts(body): body["messages"][0]["content"][0]["image_url"]["url"] for body in server.bodies}
    assert set(known) == {
        "expression happy; lip corners strongly pulled up; turned to the left",
        "expression unknown",
    }
    assert base64.b64decode(known["expression unknown"].split(",")[1]) == png(1)


def test_what_is_no_caption_is_a_reject_with_its_reason(server, tmp_path):
    answers = {
        "happy": completion("a sad person with raised brows"),
        "fear": completion("I'm sorry, I can't describe people."),
        "unknown": completion("a smiling person with raised cheeks"),
        "anger": completion("an angry man"),
    }
    server.reply = lambda body: answers[facts(body).split()[1]]
    rows = [row(i, label=label) for i, label in enumerate(["happy", "fear", None, "anger"])]
    found = [
        (row["stage"], row["reason"], row["detail"], row["caption"])
        for row in captioned(server, tmp_path, rows)
    ]
    assert found == [
        ("caption", "other_expression", "sad", None),
        ("caption", "refusal", "I'm sorry", None),
        ("caption", "other_expression", "smiling", None),
        ("caption", "too_short", "3 words", None),
    ]


def test_a_caption_follows_from_the_run_and_the_row(server, tmp_path):
    texts = [
        [row["caption"] for row in captioned(server, tmp_path / name, rows, seed)]
        for name, rows, seed in (
            ("a", [row(0), row(1)], 0),
            ("b", [row(1), row(0)], 0),
            ("c", [row(0), row(1)], 1),
        )
    ]
    assert texts[0] == texts[1][::-1]
    assert len({*texts[0], *texts[2]}) == 4
