"""`accepted_per_class`: the plan grows until every expression has its accepted rows."""

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from synfer_ray.config import VoteConfig
from synfer_ray.errors import PARTIAL, RunFailed
from synfer_ray.pipeline import generate
from synfer_ray.storage.manifest import read_manifest
from synfer_ray.storage.verify import verify
from synfer_ray.taxonomy.expressions import EXPRESSIONS
from tests.jobs.runs import rows_of, small_job

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def config(tmp_path_factory, two_cpus):
    """The settings, for the two expressions that the tiny voters see most and least often."""
    folder = tmp_path_factory.mktemp("accepted")
    look = small_job(folder, output=str(folder / "look"), num_images=14, batch_size=2, shard_rows=2)
    generate(look)
    seen = Counter(EXPRESSIONS[row["label"]] for row in rows_of(Path(look.output)).values())
    often, seldom = (
        max(EXPRESSIONS, key=lambda name: seen[name]),
        min(EXPRESSIONS, key=lambda name: seen[name]),
    )
    return replace(look, output=str(folder / "out"), expressions=[often, seldom], vote=VoteConfig("filter"))


@pytest.fixture(scope="module")
def grown(config):
    """A run that went on until the expression that is often seen had its rows."""
    asked = replace(config, expressions=config.expressions[:1], accepted_per_class=3)
    generate(asked)
    return asked


def test_every_expression_has_its_rows_and_the_run_is_done(grown, capsys):
    manifest = read_manifest(grown.output)
    (name,) = grown.expressions
    assert manifest.labels[name] >= 3
    assert manifest.planned_rows % grown.shard_rows == 0
    assert verify(grown.output) == []
    generate(grown)
    assert capsys.readouterr().out.startswith("nothing to do")


def test_an_interrupted_run_ends_with_the_same_rows(grown, tmp_path):
    interrupted = tmp_path / "out"
    shutil.copytree(grown.output, interrupted)
    records = sorted((interrupted / "commits").iterdir())
    for record in [records[0], *records[2:]]:
        record.unlink()
    (interrupted / "README.md").unlink()
    generate(replace(grown, output=str(interrupted)))
    assert rows_of(interrupted) == rows_of(Path(grown.output))
    assert verify(interrupted) == []


def test_the_bound_ends_the_run_with_its_own_exit_code(config, tmp_path):
    asked = replace(config, output=str(tmp_path / "out"), accepted_per_class=2, max_images=9)
    for _ in range(2):  # the second time there is nothing to do, and the rows are still missing
        with pytest.raises(RunFailed, match="has too few images") as end:
            generate(asked)
        assert end.value.exit_code == PARTIAL
    assert read_manifest(asked.output).planned_rows == 8
    assert verify(asked.output) == []
