import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from synfer_ray.config import GenerateConfig, LanguageModelConfig, PoolConfig
from synfer_ray.errors import InputError
from synfer_ray.plan import Plan, expression_of, plan_row
from synfer_ray.prompts import names_other_expression
from synfer_ray.prompts.cues import without_cues
from synfer_ray.taxonomy.action_units import ACTION_UNITS
from synfer_ray.taxonomy.au_priors import AU_PRIORS
from synfer_ray.taxonomy.compounds import COMPOUND_EXPRESSIONS
from synfer_ray.taxonomy.expressions import EXPRESSIONS

MODELS = {"model": "m", "adapter": "a", "feranno": "f"}


def plan(layouts=None, **settings) -> Plan:
    return Plan(GenerateConfig(output="out", **settings), MODELS, layouts)


def test_labels_are_balanced_in_every_prefix():
    rows = [plan_row(plan(), index) for index in range(70)]
    for end in range(7, 71):
        counts = Counter(row.assigned_label for row in rows[:end])
        assert max(counts.values()) - min(counts[label] for label in range(7)) <= 1


@given(share=st.floats(0, 1), count=st.integers(1, 400))
@settings(max_examples=50, deadline=None)
def test_compound_share_is_met_and_the_rest_stays_balanced(share, count):
    config = GenerateConfig(output="out", compound_share=share)
    names = [expression_of(config, index) for index in range(count)]
    compounds = [name for name in names if name in COMPOUND_EXPRESSIONS]
    basic = Counter(name for name in names if name in EXPRESSIONS)
    assert abs(len(compounds) - share * count) <= 1
    assert max(basic.values(), default=0) - min(basic[name] for name in EXPRESSIONS) <= 1


@given(seed=st.integers(0, 2**31), index=st.integers(0, 10**7))
@settings(max_examples=30, deadline=None)
def test_rows_are_a_pure_function_of_seed_and_index(seed, index):
    row = plan_row(plan(seed=seed, layouts=("fer64/layout", 9)), index)
    assert plan_row(plan(seed=seed, layouts=("fer64/layout", 9), num_images=9, shard_rows=32), index) == row
    assert plan_row(plan(seed=seed + 1, layouts=("fer64/layout", 9)), index).seed != row.seed


def test_no_two_rows_share_a_seed_or_an_id():
    rows = [plan_row(plan(), index) for index in range(500)]
    assert len({row.seed for row in rows}) == len({row.sample_id for row in rows}) == 500
    assert max(row.seed for row in rows) < 2**32  # torch reads no more of a seed


def test_action_units_and_prompt_fit_the_expression():
    for index in range(42):
        row = plan_row(plan(), index)
        expression = EXPRESSIONS[row.assigned_label]
        shown = {name for name, value in zip(ACTION_UNITS, row.action_units) if value > 0}
        assert set(AU_PRIORS[expression].prototypical) <= shown
        assert names_other_expression(row.prompt, expression) is None


def test_action_units_are_those_of_a_real_face_of_the_expression_if_readings_are_at_hand():
    rng = np.random.default_rng(0)
    readings = {name: rng.random((5, 41)).astype(np.float32) for name in EXPRESSIONS}
    read = replace(plan(), readings=readings, controlled=ACTION_UNITS[:9])
    drawn = [plan_row(read, index) for index in range(350)]
    for place, name in enumerate(EXPRESSIONS):
        rows = np.array([row.action_units for row in drawn if row.assigned_label == place], np.float32)
        assert np.isnan(rows[:, 9:]).all()
        faces = {tuple(face) for face in readings[name][:, :9]}
        assert {tuple(row) for row in rows[:, :9]} == faces  # all five of them come up
    np.testing.assert_array_equal(drawn[3].action_units, plan_row(read, 3).action_units)


def test_a_blend_follows_the_textbooks_whatever_readings_there_are():
    settings = {"compound_share": 1.0, "compounds": ["sadly angry"]}
    read = replace(plan(**settings), readings={name: np.ones((1, 41), np.float32) for name in EXPRESSIONS})
    assert plan_row(read, 3) == plan_row(plan(**settings), 3)


def test_prompts_keep_silent_on_action_units_if_they_should():
    for index in range(42):
        told, silent = (plan_row(plan(describe_action_units=tell), index) for tell in (True, False))
        assert without_cues(told.prompt) == silent.prompt
        assert told.seed == silent.seed and told.attributes == silent.attributes
        np.testing.assert_array_equal(told.action_units, silent.action_units)


def test_compound_rows_carry_the_dominant_part_as_label():
    row = plan_row(plan(compound_share=1.0, compounds=["sadly angry"]), 3)
    assert (row.compound, EXPRESSIONS[row.assigned_label]) == ("sadly angry", "sad")


def test_attribute_quotas_are_drawn_and_independent_of_the_noise():
    quotas = {"gender": {"female": 1.0, "male": 3.0}}
    rows = [plan_row(plan(attributes=quotas), index) for index in range(400)]
    share = np.mean([json.loads(row.attributes)["gender"] == "male" for row in rows])
    assert share == pytest.approx(0.75, abs=0.08)
    assert [row.seed for row in rows] == [plan_row(plan(), index).seed for index in range(400)]


def test_faces_look_at_the_camera_unless_a_pose_is_asked_for():
    assert json.loads(plan_row(plan(attributes={"gender": {"male": 1.0}}), 0).attributes) == {
        "pose": "frontal",
        "gender": "male",
    }
    frontal = plan_row(plan(), 0).prompt
    assert ", facing the camera" in frontal
    for pose, phrase in (("left", ", turned to the left"), ("any", "")):
        row = plan_row(plan(attributes={"pose": {pose: 1.0}}), 0)
        assert json.loads(row.attributes) == {"pose": pose}
        assert row.prompt == frontal.replace(", facing the camera", phrase)


def test_layout_sources_come_from_the_whole_pool():
    sources = {plan_row(plan(layouts=("fer64/layout", 4)), index).layout_source for index in range(60)}
    assert sources == {f"fer64/layout-{number:08d}" for number in range(4)}


def test_fingerprint_ignores_what_decides_no_row():
    same = plan(num_images=9, shard_rows=32, overlays=0)
    assert same.fingerprint == plan().fingerprint
    assert plan(batch_size=32).fingerprint != plan().fingerprint
    assert replace(plan(), models=MODELS | {"feranno": "other"}).fingerprint != plan().fingerprint


def test_of_a_language_model_only_what_words_the_prompts_belongs_to_the_plan():
    settings = {"kind": "endpoint", "model": "chat", "url": "http://here/v1"}
    enriched = plan(enricher=LanguageModelConfig(**settings))
    elsewhere = {"url": "http://there/v1", "timeout": 1.0, "concurrency": 2, "pool": PoolConfig(num_cpus=0.5)}
    assert plan(enricher=LanguageModelConfig(**settings | elsewhere)).fingerprint == enriched.fingerprint
    for change in ({"model": "other"}, {"temperature": 0.0}, {"kind": "transformers"}, {"max_words": 9}):
        assert plan(enricher=LanguageModelConfig(**settings | change)).fingerprint != enriched.fingerprint
    assert plan(enricher=LanguageModelConfig(timeout=1.0)).inputs == plan().inputs
    assert "enricher" not in plan().inputs


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"expressions": ["hapy"]}, "'hapy'.*happy"),
        ({"compounds": ["gladly sad"]}, "gladly sad"),
        ({"compound_share": 1.5}, "1.5"),
        ({"expressions": []}, "expressions"),
        ({"attributes": {"gendr": {"male": 1.0}}}, "gendr.*gender"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(InputError, match=message):
        plan_row(plan(**settings), 0)
