from collections import Counter
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from synfer_ray.quickstart import CLASS_WEIGHTS, DEAL, SHARES
from synfer_ray.taxonomy.expressions import EXPRESSIONS

CONFIGS = Path(__file__).parent.parent / "configs"


def test_expressions_are_dealt_out_by_their_shares():
    assert Counter(DEAL) == SHARES and set(SHARES) == set(EXPRESSIONS)
    assert DEAL[: len(SHARES)] == list(SHARES)  # each of them early, whatever is interrupted


@pytest.mark.parametrize(("file", "job"), [("fer64.yaml", ""), ("ablation.yaml", "generate")])
def test_voters_weigh_expressions_as_the_configs_say(file, job):
    config = OmegaConf.load(CONFIGS / file)
    assert OmegaConf.to_container((config[job] if job else config).vote.class_weights) == CLASS_WEIGHTS
