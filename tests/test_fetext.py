import json
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from synfer_ray.calibration.networks import ActionUnitNet
from synfer_ray.config import FETextConfig, PoolConfig
from synfer_ray.errors import InputError
from synfer_ray.fetext import build_fetext
from synfer_ray.prompts.lint import names_other_expression
from synfer_ray.storage.manifest import read_manifest
from synfer_ray.storage.verify import verify
from synfer_ray.storage.weights import save_model
from synfer_ray.taxonomy.action_units import ACTION_UNITS
from tests.calibration.published.layouts import open_graph_au, random_weights, save_pickle
from tests.faces.pictures import picture, png

pytestmark = pytest.mark.usefixtures("two_cpus")


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> Path:
    """Sorted by name: 3 contempt, 10 happy, 10 sad, of which some are damaged, small or there twice."""
    root = tmp_path_factory.mktemp("faces")
    images = {f"happy/{i}.png": png(i) for i in range(10)} | {f"sad/{i}.png": png(10 + i) for i in range(10)}
    images |= {f"contempt/{i}.png": png(20 + i) for i in range(3)}
    images |= {"sad/3.png": images["happy/2.png"], "sad/4.png": b"", "sad/5.png": png(30, side=16)}
    for name, data in images.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(data)
    retouched = picture(1)
    retouched.putpixel((5, 5), (0, 0, 0))
    retouched.save(root / "sad/6.png")
    return root


def config(faces: Path, output: Path, **changes) -> FETextConfig:
    settings = {"au_labeler": "none", "align": False, "shard_rows": 4, "image_size": 32, "source": "toy"}
    return FETextConfig(input=str(faces), output=str(output), **settings | changes)


def contents(output: Path) -> dict[str, bytes]:
    """The bytes of every row, whatever the moment at which they were written."""
    return {str(path.relative_to(output)): path.read_bytes() for path in sorted(output.glob("*/*.parquet"))}


@pytest.fixture(scope="module")
def built(faces, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("fetext") / "out"
    build_fetext(config(faces, output))
    return output


def test_every_row_is_written_or_rejected_with_its_reason(built):
    manifest = read_manifest(built)
    assert manifest.planned_rows == 23 == manifest.totals["rows"] + manifest.totals["rejects"]
    assert manifest.reject_reasons == {
        "not_a_basic_expression": 3,
        "exact_duplicate": 1,
        "near_duplicate": 1,
        "empty_file": 1,
        "too_small": 1,
    }
    assert verify(built) == []
    assert len(list(built.glob("commits/*.json"))) == 6
    assert (
        "captioner" not in manifest.plan and manifest.writers == {}
    )  # the template grammar goes without saying


def test_the_hugging_face_library_decodes_it(built, tmp_path):
    dataset = datasets.load_dataset(
        "parquet", data_files=f"{built}/data/*.parquet", split="train", cache_dir=str(tmp_path)
    )
    assert len(dataset) == 16
    for row in dataset:
        label = dataset.features["label"].int2str(row["label"])
        assert isinstance(row["image"], Image.Image) and row["image"].size == (32, 32)
        assert row["sample_id"].startswith(f"toy/{label}/")
        assert names_other_expression(row["caption"], label) is None
        assert json.loads(row["attributes"]) == {"source_label": label}
    assert len(set(dataset["sample_id"])) == 16


def test_summary_and_card(built):
    summary = json.loads((built / "summary.json").read_text())
    assert summary["rows"] == 16
    assert summary["labels"] == {
        "neutral": 0, "happy": 10, "sad": 6, "surprise": 0, "fear": 0, "disgust": 0, "anger": 0
    }  # fmt: skip
    assert summary["action_units"] == {}
    assert "FEText of toy" in (built / "README.md").read_text()


def test_a_rejected_row_names_stage_and_origin(built):
    rejects = pq.ParquetDataset(str(built / "rejects")).read().to_pylist()
    (duplicate,) = [row for row in rejects if row["reason"] == "exact_duplicate"]
    assert duplicate["sample_id"] == "toy/sad/3.png"
    assert duplicate["stage"] == "filter"
    assert duplicate["detail"] == "of row 5"
    assert json.loads(duplicate["row"]) == {"label": "sad", "source_label": "sad"}


def test_again_changes_nothing_and_a_lost_shard_comes_back_equal(built, faces):
    before = contents(built)
    build_fetext(config(faces, built))
    assert contents(built) == before
    next(built.glob("commits/00000004-*.json")).unlink()
    build_fetext(config(faces, built, face_pool=PoolConfig(min_actors=2, num_cpus=0.5)))
    assert contents(built) == before
    assert verify(built) == []


def test_another_plan_in_the_same_folder_is_refused(built, faces):
    with pytest.raises(InputError, match="image_size"):
        build_fetext(config(faces, built, image_size=48))


@pytest.mark.slow
def test_the_bundles_labeler(faces, tmp_path):
    (tmp_path / "bundle" / "unet").mkdir(parents=True)
    torch.manual_seed(0)
    save_model(ActionUnitNet(channels=(4, 8), supported=["AU12"]), tmp_path / "bundle" / "au_labeler")
    output = tmp_path / "out"
    build_fetext(
        config(faces / "happy", output, au_labeler="bundle", bundle=str(tmp_path / "bundle"), shard_rows=100)
    )
    summary = json.loads((output / "summary.json").read_text())
    assert list(summary["action_units"]) == ["AU12"]
    assert summary["action_units"]["AU12"]["known"] == 1.0


def test_a_released_checkpoint_of_open_graph_au(faces, tmp_path):
    path = save_pickle(tmp_path / "OpenGprahAU.pth", random_weights(open_graph_au("resnet18", 1)))
    settings = {"au_labeler": "open_graph_au", "au_checkpoint": str(path), "ambiguous_units": "unknown"}
    settings["face_pool"] = PoolConfig(min_actors=1)
    output = tmp_path / "out"
    build_fetext(config(faces / "happy", output, **settings, shard_rows=100))
    units = json.loads((output / "summary.json").read_text())["action_units"]
    assert set(units) == set(ACTION_UNITS) - {"AUL12", "AUR12"}
    assert all(unit["known"] == 1.0 for unit in units.values())
    assert read_manifest(output).plan["models"]["au_labeler"]
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(InputError, match="au_labeler"):
        build_fetext(config(faces / "happy", output, **settings, shard_rows=100))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"au_labeler": "open_graph_au", "au_checkpoint": "/absent.pth"}, "none at '/absent.pth'"),
        ({"many_faces": "smallest"}, "choices: certain, largest, central, reject"),
        ({"label_votes": -1.0}, "label_votes=-1.0"),
        ({"label_votes": float("nan")}, "label_votes=nan"),
        ({"label_votes": 10.0}, "needs both label_column and vote_column"),
        ({"crop": "arcfce"}, "did you mean 'arcface'"),
        ({"au_labeler": "mediapip"}, "did you mean 'mediapipe'"),
        ({"au_labeler": "mediapipe"}, "landmarker_model=FILE.task"),
        ({"align": True}, "landmarker_model=FILE.task"),
        ({"au_labeler": "bundle", "bundle": "absent"}, "absent"),
        ({"landmarker_model": "/absent.task"}, "missing model file: /absent.task"),
        ({"upscaler": "/absent.pth"}, "missing model file: /absent.pth"),
        ({"vote_column": "votes", "vote_order": "ferpluss"}, "did you mean 'ferplus'"),
    ],
)
def test_bad_settings_are_named(faces, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        build_fetext(config(faces, tmp_path / "out", **changes))
    assert not (tmp_path / "out").exists()


def test_an_empty_folder_is_bad_input(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no faces at"):
        build_fetext(config(tmp_path / "empty", tmp_path / "out"))
