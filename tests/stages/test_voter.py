from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from synfer_ray.calibration.experts import load_expert
from synfer_ray.config import CalibrateConfig, ExpertConfig, FacesConfig, ServeConfig
from synfer_ray.faces.images import decode_image, resize_square, square_pixels
from synfer_ray.faces.preparation import cut_out
from synfer_ray.stages.sample_rows import rejection, sample_rows
from synfer_ray.stages.voter import Voter
from synfer_ray.storage.bundle import expert_spec
from tests.faces.pictures import png as noise
from tests.fake_dataset import face, png
from tests.tiny_bundle import save_tiny_bundle

VOTERS = ["feranno", "residual", "separable"]


@pytest.fixture(scope="module")
def voter(tmp_path_factory):
    bundle = save_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")
    return Voter(CalibrateConfig(input="", output="", bundle=str(bundle), batch_size=3), VOTERS)


def rows(*indices, **changes):
    images = ({"bytes": png(face(index, 48)), "path": None} for index in indices)
    return [{"index": index, "image": image} | changes for index, image in zip(indices, images)]


def ask(voter, planned):
    return voter(sample_rows(planned, VOTERS)).drop_columns("vote_seconds").to_pylist()


def test_every_voter_leaves_its_opinion_of_the_resized_image(voter, tmp_path):
    (row,) = ask(voter, rows(0))
    for name in VOTERS:
        assert sum(row[f"voter_{name}"]) == pytest.approx(1, abs=1e-5)
    resized = decode_image(row["image"]["bytes"]).resize((32, 32), 1)
    pixels = np.asarray(resized, dtype=np.float32).transpose(2, 0, 1)[None] / 127.5 - 1
    expected = voter.experts[0].predict(np.ascontiguousarray(pixels))[0]
    np.testing.assert_allclose(row["voter_residual"], expected, atol=1e-5)


def test_a_row_does_not_depend_on_its_neighbours(voter):
    together = {row["index"]: row for row in ask(voter, rows(*range(7)))}
    for indices in ([4], [0, 5], [1, 2, 3]):
        for row in ask(voter, rows(*indices)):
            assert row == together[row["index"]]


def test_unreadable_images_are_rejected_and_their_neighbours_judged(voter):
    good, bad = rows(0, 1)
    bad["image"] = {"bytes": bad["image"]["bytes"][:60], "path": None}
    judged, refused = ask(voter, [good, bad])
    assert (refused["stage"], refused["reason"]) == ("decode", "damaged")
    assert refused["voter_residual"] is None and refused["image"] is None
    assert judged == ask(voter, [good])[0]


def test_rejected_rows_are_not_looked_at(voter):
    (row,) = ask(voter, rows(0, **rejection("generate", "black", "x")))
    assert row["voter_residual"] is None and row["reason"] == "black"


def test_an_unknown_expert_is_refused_with_the_choices(tmp_path):
    bundle = save_tiny_bundle(tmp_path / "tiny")
    with pytest.raises(
        ValueError, match="unknown expert 'residul'; choices: feranno, guide, residual, separable"
    ):
        expert_spec("residul", bundle, {})
    assert load_expert(expert_spec("guide", bundle, {})).name == "guide"


def cropped(config, **settings):
    expert = ExpertConfig(path=str(Path(config.bundle) / "experts" / "guide"), crop="arcface")
    return replace(config, voters=["guide", "mine"], experts={"mine": expert}, **settings)


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    bundle = save_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")
    return CalibrateConfig(input="", output="", bundle=str(bundle), batch_size=2)


def test_each_expert_sees_its_own_crop(settings, fer2013, third_party_models):
    pytest.importorskip("mediapipe")
    faces = FacesConfig(landmarker_model=str(third_party_models / "face_landmarker.task"))
    config = cropped(settings, faces=faces)
    table = pq.read_table(fer2013 / "validation-00000-of-00001.parquet").slice(0, 4)
    planned = [{"index": i, "image": image} for i, image in enumerate(table["image"].to_pylist())]
    planned.append({"index": 4, "image": {"bytes": noise(0, side=64), "path": None}})
    voter = Voter(config, config.voters)
    *judged, blank = voter(sample_rows(planned, config.voters)).to_pylist()
    assert (blank["stage"], blank["reason"]) == ("vote", "no_face") and blank["image"] is not None
    seen = [row for row in judged if row["reason"] is None]
    assert len(seen) >= 3
    for row in seen:
        image = decode_image(row["image"]["bytes"])
        aligned = cut_out(image, voter.preparation.find(image), "arcface", 32)
        for name, shown in (("voter_guide", resize_square(image, 32)), ("voter_mine", aligned)):
            expected = voter.experts[0].predict(square_pixels(shown, 32)[None])[0]
            np.testing.assert_allclose(row[name], expected, atol=1e-5)


def test_a_crop_needs_a_landmarker_and_a_name(settings):
    config = cropped(settings)
    for changed, message in [
        (config, r"crop=arcface of expert mine needs faces\.landmarker_model"),
        (
            replace(config, experts={"mine": replace(config.experts["mine"], crop="arcfce")}),
            "crop of expert mine",
        ),
        (
            ServeConfig(bundle=config.bundle, voters=config.voters, experts=config.experts),
            "a service judges faces as sent",
        ),
    ]:
        assert message.replace("\\", "") in str(Voter(changed, ["guide", "mine"]).refusal)
