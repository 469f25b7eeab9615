import numpy as np
import pytest

from synfer_ray.prompts.lint import NEUTRAL_PROMPT, names_other_expression
from synfer_ray.stages.captioner import Captioner
from synfer_ray.stages.face_rows import face_rows, face_table
from synfer_ray.taxonomy.action_units import au_vector

SMILE = au_vector({"AU12": 0.9}, fill=np.nan)


def row(sample_id: str = "set/1", **columns) -> dict:
    return {"index": 0, "sample_id": sample_id, "label": "happy", "action_units": SMILE} | columns


def caption(seed: int = 0, **columns) -> str:
    (captioned,) = face_rows(Captioner(seed)(face_table([row(**columns)])))
    return captioned["caption"]


def test_the_caption_follows_from_seed_and_id_alone():
    alone = caption()
    together = face_rows(Captioner(0)(face_table([row("set/0"), row("set/1")])))[1]["caption"]
    assert alone == together
    ids = [f"set/{i}" for i in range(20)]
    assert len({caption(sample_id=name) for name in ids}) > 10
    assert [caption(1, sample_id=name) for name in ids] != [caption(0, sample_id=name) for name in ids]


def test_the_label_and_the_pose_are_named():
    text = caption(label="sad", attributes={"pose": "left"}, label_probs=np.eye(7)[2].tolist())
    assert names_other_expression(text, "sad") is None
    assert names_other_expression(text, "happy") is not None
    assert "turned to the left" in text


def test_a_face_without_label_names_no_expression():
    text = caption(label=None)
    assert text.startswith(NEUTRAL_PROMPT)
    assert "lip corners" in text


def test_unknown_action_units_become_nan_and_attributes_empty():
    (captioned,) = face_rows(Captioner(0)(face_table([row(action_units=None)])))
    assert np.isnan(captioned["action_units"]).all() and len(captioned["action_units"]) == 41
    assert captioned["attributes"] == {}


@pytest.mark.parametrize("reason", ["no_face", "blurred"])
def test_rejected_rows_get_no_caption(reason):
    (captioned,) = face_rows(Captioner(0)(face_table([row(stage="x", reason=reason)])))
    assert captioned["caption"] is None
