import base64
import io
import re
import uuid
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from synfer_ray.errors import InputError
from synfer_ray.reporting import samples
from synfer_ray.reporting.overlays import heat_overlay
from synfer_ray.reporting.report import build_report, picture
from synfer_ray.reporting.samples import survey
from synfer_ray.storage.locations import filesystem, write_bytes
from synfer_ray.storage.manifest import claim_output
from synfer_ray.storage.schema import fetext_schema, reject_schema, sample_schema
from synfer_ray.storage.shards import Commit, commit_shard, read_commits
from synfer_ray.taxonomy.action_units import ACTION_UNITS
from synfer_ray.taxonomy.expressions import EXPRESSIONS
from tests.fake_dataset import VOTERS, face, fill, png, sample, tables


class Page(HTMLParser):
    """Collects what a browser would show and load."""

    VOID = {"meta", "img", "line", "polyline", "link", "br"}

    def __init__(self, html):
        super().__init__()
        self.open, self.words, self.images, self.tags = [], [], [], set()
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag == "img":
            self.images.append(dict(attrs)["src"])
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open[-1:] != ["style"]:
            self.words.append(data)


def page(output):
    fs, root = filesystem(output)
    return Page(fs.cat_file(f"{root}/report.html").decode())


@pytest.fixture(params=["local", "memory"])
def output(request, tmp_path):
    uri = str(tmp_path / "out") if request.param == "local" else f"memory://{uuid.uuid4().hex}/out"
    claim_output(uri, {"seed": 0, "models": {"unet": "abcdef"}}, planned_rows=60)
    return uri


def test_the_report_is_one_well_formed_file_with_all_sections(output):
    fill(output, shards=3, rows=20)
    fs, root = filesystem(output)
    overlay = heat_overlay(face(0), np.eye(8))
    write_bytes(fs, f"{root}/overlays/sad_mouth.png", png(overlay))
    assert build_report(output) == f"{output}/report.html"

    shown = page(output)
    assert shown.open == []
    assert "script" not in shown.tags and "link" not in shown.tags
    assert all(source.startswith("data:image/webp;base64,") for source in shown.images)
    for heading in ("Samples", "Label changes", "Rejected", "Action units", "Attention", "Provenance"):
        assert heading in shown.text
    assert "sad mouth" in shown.text
    assert "Samples 48" in shown.text and "Rejected 12" in shown.text
    assert "Settled of 60 planned 100.0 %" in shown.text
    assert '"unet": "abcdef"' in shown.text
    for voter in VOTERS:
        assert voter in shown.text


def test_the_matrix_shows_every_row_of_the_dataset(output):
    fill(output, shards=3, rows=20)
    build_report(output)
    text = page(output).text
    rows = [sample(index) for index in range(60) if index % 5 != 4]
    for index, name in enumerate(EXPRESSIONS):
        labels = [row["label"] for row in rows if row["assigned_label"] == index]
        counts = " ".join(str(labels.count(label)) for label in range(7))
        kept = 100 * labels.count(index) / len(labels)
        assert f"{name} {counts} {kept:.1f} %" in text


def test_throughput_is_a_curve_over_the_time_between_commits(tmp_path):
    claim_output(tmp_path, {"seed": 0})
    fill(tmp_path, shards=5, rows=10)
    for record in (tmp_path / "commits").iterdir():
        commit = Commit.from_json(record.read_text())
        moment = f"2025-01-01T0{commit.first // 10}:00:00+00:00"
        record.write_text(replace(commit, committed_at=moment).to_json())
    build_report(tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert "over 4:00:00 hours of work" in html
    points = re.search('polyline points="([^"]+)"', html)[1].split()
    assert points == ["0.0,96.0", "180.0,72.0", "360.0,48.0", "540.0,24.0", "720.0,0.0"]


def test_text_from_the_data_is_escaped(tmp_path):
    claim_output(tmp_path, {"seed": 0})
    row = sample(0) | {"prompt": '"><script>alert(1)</script>'}
    data = pa.Table.from_pylist([row], sample_schema(VOTERS))
    commit_shard(tmp_path, 0, 0, data, reject_schema().empty_table())
    build_report(tmp_path)
    assert "script" not in page(tmp_path).tags


def test_pictures_are_small_but_faithful():
    large = face(4, 512)
    uri = picture(png(large))
    shown = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
    assert shown.size == (192, 192)
    expected = np.asarray(large.resize((192, 192), Image.Resampling.LANCZOS), float)
    assert np.abs(np.asarray(shown.convert("RGB"), float) - expected).mean() < 6


def test_a_large_dataset_is_only_looked_into(monkeypatch):
    output = f"memory://{uuid.uuid4().hex}"
    fill(output, shards=60, rows=8, size=16)
    opened = []
    real = samples.first_rows
    monkeypatch.setattr(samples, "first_rows", lambda output, file: opened.append(file) or real(output, file))
    found = survey(output, read_commits(output), per_expression=5, most_changed=3)
    assert len(opened) == 24
    assert opened[0].endswith("00000000-00000007.parquet") and opened[-1].endswith(
        "00000472-00000479.parquet"
    )
    assert {name: len(kept) for name, kept in found.groups.items()} == dict.fromkeys(EXPRESSIONS, 5)
    assert len(found.changed) == 3


def test_compound_expressions_have_rows_of_their_own_below_the_basic_ones(tmp_path):
    rows = [sample(index) | {"compound": "appalled" if index == 2 else None} for index in range(4)]
    data = pa.Table.from_pylist(rows, sample_schema(VOTERS))
    commit_shard(tmp_path, 0, 3, data, reject_schema().empty_table())
    groups = survey(tmp_path, read_commits(tmp_path), 5).groups
    assert list(groups)[-1] == "appalled" and set(groups) - {"appalled"} <= set(EXPRESSIONS)
    assert [found.sample_id for found in groups["appalled"]] == [rows[2]["sample_id"]]


def test_action_units_are_means_of_what_is_known_by_assigned_expression(tmp_path):
    rows = [sample(index) for index in (0, 7, 14)]
    for row, value in zip(rows, (0.2, 0.8, float("nan"))):
        row["action_units"] = [0.0] * len(ACTION_UNITS)
        row["action_units"][ACTION_UNITS.index("AU12")] = value
    data = pa.Table.from_pylist(rows, sample_schema(VOTERS))
    commit_shard(tmp_path, 0, 14, data, reject_schema().empty_table())
    means = survey(tmp_path, read_commits(tmp_path), 1).mean_action_units
    assert means[rows[0]["assigned_label"], ACTION_UNITS.index("AU12")] == pytest.approx(0.5)
    assert means.sum() == pytest.approx(0.5)


def test_fetext_has_a_report_too(output):
    row = {
        "sample_id": "a",
        "image": {"bytes": png(face(3)), "path": None},
        "caption": "a happy face",
        "action_units": [float("nan")] * len(ACTION_UNITS),
        "label": None,
        "label_probs": None,
        "attributes": "{}",
        "source": "raw/3.jpg",
        "license": "unknown",
    }
    data = pa.Table.from_pylist([row, row | {"sample_id": "b", "label": 1}], schema=fetext_schema())
    commit_shard(output, 0, 1, data, reject_schema().empty_table())
    build_report(output)
    shown = page(output)
    assert "unlabelled" in shown.text and "Samples 2" in shown.text
    assert len(shown.images) == 2


def test_an_empty_dataset_has_a_report(output):
    build_report(output)
    assert "No samples yet" in page(output).text


def test_a_dataset_of_rejects_only_shows_why(output):
    commit_shard(output, 0, 5, *tables([], rejected=range(6)))
    build_report(output)
    shown = page(output)
    assert re.search(r"no_face 2\b", shown.text)
    assert len(shown.images) == 6


def test_a_folder_that_is_no_dataset_is_refused(tmp_path):
    with pytest.raises(InputError, match="not a dataset folder"):
        build_report(tmp_path)
