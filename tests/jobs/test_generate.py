import json
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from synfer_ray.benchmarks.stand_in import stand_in
from synfer_ray.calibration.wholeness import WholenessNet
from synfer_ray.config import LayoutConfig, PoolConfig, SamplingConfig, VoteConfig
from synfer_ray.errors import InputError
from synfer_ray.pipeline import MIN_READABILITY, MIN_WHOLENESS, au_readings, generate, make_plan, shards_of
from synfer_ray.storage.bundle import AUTOGUIDANCE_SCALE
from synfer_ray.storage.manifest import read_manifest
from synfer_ray.storage.shards import read_commits
from synfer_ray.storage.verify import verify
from synfer_ray.storage.weights import save_model
from synfer_ray.taxonomy.expressions import EXPRESSIONS
from tests.jobs.runs import rows_of, settings, small_job
from tests.tiny import tiny_weak_unet

NUM_IMAGES = 20


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return small_job(
        tmp_path_factory.mktemp("generate"),
        num_images=NUM_IMAGES,
        sampling=SamplingConfig(num_inference_steps=4),
        vote=VoteConfig(on_mismatch="filter"),
        overlays=1,
    )


@pytest.fixture(scope="module")
def finished(config, two_cpus):
    generate(config)
    return Path(config.output)


def test_every_planned_row_is_written_or_rejected(finished):
    manifest = read_manifest(finished)
    assert manifest.totals["rows"] + manifest.totals["rejects"] == manifest.planned_rows == NUM_IMAGES
    assert sum(manifest.reject_reasons.values()) == manifest.totals["rejects"] > 0
    assert sorted(rows_of(finished)) == list(range(NUM_IMAGES))
    assert verify(finished) == []


def test_the_output_stands_for_itself(finished):
    names = {path.name for path in finished.iterdir()}
    assert {"README.md", "report.html", "contact_sheet.png", "manifest.json", "overlays"} <= names
    assert read_manifest(finished).config["sampling"]["num_inference_steps"] == 4


def test_datasets_decodes_images_and_names_labels(finished, tmp_path):
    datasets = pytest.importorskip("datasets")
    files = [str(path) for path in finished.glob("data/*.parquet")]
    data = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=str(tmp_path))
    assert data.num_rows == read_manifest(finished).totals["rows"]
    assert data[0]["image"].size == (32, 32)
    assert data.features["label"].names == list(EXPRESSIONS)
    assert all(row["label"] == row["assigned_label"] for row in data)  # the rest was filtered


def test_rejects_hold_their_plan_and_their_reason(finished):
    rejects = [row for row in rows_of(finished).values() if "reason" in row]
    assert {(row["stage"], row["reason"]) for row in rejects} == {("vote", "mismatch")}
    for row in rejects:
        assert json.loads(row["row"])["index"] == row["index"]
        assert row["image"]["bytes"] and len(row["label_probs"]) == 7


def test_two_actors_after_a_stop_make_the_same_rows(finished, config, tmp_path):
    interrupted = tmp_path / "out"
    shutil.copytree(finished, interrupted)
    for commit in ("00000000-00000007", "00000016-00000019"):
        (interrupted / "commits" / f"{commit}.json").unlink()
    (interrupted / "data" / "train-00000000-00000007.parquet").write_bytes(b"half a file")
    (interrupted / "README.md").unlink()
    pool = PoolConfig(min_actors=2, max_actors=2, num_cpus=0.5)
    generate(replace(config, output=str(interrupted), generator_pool=pool))
    assert rows_of(interrupted) == rows_of(finished)
    assert verify(interrupted) == []


def test_shards_are_committed_as_they_are_made_though_generators_fill_the_machine(config, two_cpus, tmp_path):
    output = str(tmp_path / "out")
    full = replace(config, output=output, num_images=160, overlays=0)
    full = replace(
        full, generator_pool=PoolConfig(min_actors=2), voter_pool=PoolConfig(min_actors=1, num_cpus=0.25)
    )
    generate(full, generator=stand_in(seconds_per_image=0.2, image_size=32))
    moments = sorted(datetime.fromisoformat(commit.committed_at) for commit in read_commits(output))
    assert len(moments) == 20
    later_half = (moments[-1] - moments[len(moments) // 2]).total_seconds()
    assert later_half > 1  # ten shards take the generators eight seconds, and a burst of commits no time


def test_a_second_run_finds_nothing_to_do_and_starts_no_ray(finished, config):
    before = {path: path.read_bytes() for path in finished.glob("data/*")}
    code = f"""
import sys
from synfer_ray.cli import main
main(["generate", *{[*settings(config)]!r}])
assert not {{"ray", "torch"}} & set(sys.modules)
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout == f"nothing to do: {config.output} holds all {NUM_IMAGES} images\n"
    assert {path: path.read_bytes() for path in finished.glob("data/*")} == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 3}, "seed: 0 -> 3"),
        ({"sampling": SamplingConfig(num_inference_steps=5)}, "num_inference_steps: 4 -> 5"),
        ({"num_images": 8}, "holds 20 images"),
        ({"voters": ["guide", "residual"]}, "'guide'.*voter"),
        ({"shard_rows": 6}, "shard_rows=6.*batch_size=4"),
        ({"voters": []}, "voters"),
        ({"num_images": 0}, "num_images=0"),
        ({"dtype": "float8"}, "float8.*float16"),
        ({"min_wholeness": 2.0}, "min_wholeness=2.0 is not in"),
        ({"min_wholeness": 0.4}, "min_wholeness=0.4, but .* has no wholeness/ that has"),
        ({"min_readability": -0.1}, "min_readability=-0.1 is not in"),
        ({"min_readability": 0.4}, "min_readability=0.4, but .* has no wholeness/ that has"),
        ({"sampling": SamplingConfig(eta=-0.1)}, "sampling.eta=-0.1 is not in"),
        (
            {"sampling": SamplingConfig(autoguidance_scale=1.0)},
            "scale=1.0, but .* no weak_unet/",
        ),
        (
            {"sampling": SamplingConfig(guidance_scale=1.0, negative_prompt="blurry")},
            "negative_prompt='blurry'.*guidance_scale=1",
        ),
        ({"layout": LayoutConfig(mode="ddim_inversion")}, "sampling.eta=1.0: new noise.*sampling.eta=0"),
        ({"au_prior": "face"}, "face.*faces"),
        ({"au_prior": "textbook"}, 'au_prior: null -> "textbook"'),
        ({"image_format": "gif"}, "gif.*png"),
        ({"vote": VoteConfig(on_mismatch="relable")}, "relable.*relabel"),
        ({"vote": VoteConfig(class_weights={"fera": 2.0})}, "fera.*fear"),
        ({"vote": VoteConfig(class_weights={"fear": 0.0})}, "class_weights.fear=0.0; a positive"),
        ({"expressions": ["hapy"]}, "hapy.*happy"),
    ],
)
def test_what_cannot_be_continued_is_refused(finished, config, changes, message):
    with pytest.raises(InputError, match=message):
        generate(replace(config, **changes))


def test_a_bundle_without_readings_of_faces_follows_the_textbooks(config, tmp_path):
    bundle = shutil.copytree(config.bundle, tmp_path / "bundle")
    drawn = au_readings(config, bundle)
    assert {name: faces.shape for name, faces in drawn.items()} == dict.fromkeys(EXPRESSIONS, (3, 41))
    assert au_readings(replace(config, au_prior="textbook"), bundle) is None
    shutil.rmtree(bundle / "au_prior")
    assert au_readings(config, bundle) is None
    with pytest.raises(InputError, match=r"au_prior/action_units\.safetensors"):
        au_readings(replace(config, au_prior="faces"), bundle)


def test_broken_faces_are_rejected_where_the_bundle_can_tell(config, tmp_path):
    bundle = shutil.copytree(config.bundle, tmp_path / "bundle")
    plain = make_plan(config, bundle)
    assert (plain.config.min_wholeness, plain.models["wholeness"]) == (0.0, None)
    save_model(WholenessNet(input_size=32, channels=(8, 8, 16)), bundle / "wholeness")
    told = make_plan(config, bundle)
    assert told.config.min_wholeness == MIN_WHOLENESS and told.models["wholeness"]
    kept = make_plan(replace(config, min_wholeness=0.0), bundle)
    assert kept.fingerprint == plain.fingerprint != told.fingerprint
    assert told.config.min_readability == 0.0
    save_model(WholenessNet(reads=True, input_size=32, channels=(8, 8, 16)), bundle / "wholeness")
    reads = make_plan(config, bundle)
    assert (reads.config.min_wholeness, reads.config.min_readability) == (MIN_WHOLENESS, MIN_READABILITY)
    careless = make_plan(replace(config, min_wholeness=0.0, min_readability=0.0), bundle)
    assert careless.models["wholeness"] is None
    assert make_plan(replace(config, min_wholeness=0.0), bundle).models["wholeness"]


def test_a_weak_unet_is_part_of_the_plan_unless_it_is_left_out(config, tmp_path):
    bundle = shutil.copytree(config.bundle, tmp_path / "bundle")
    plain = make_plan(config, bundle)
    assert (plain.config.sampling.autoguidance_scale, plain.models["weak_unet"]) == (0.0, None)
    tiny_weak_unet().save_pretrained(bundle / "weak_unet")
    guided = make_plan(config, bundle)
    assert guided.config.sampling.autoguidance_scale == AUTOGUIDANCE_SCALE and guided.models["weak_unet"]
    left_out = replace(config, sampling=replace(config.sampling, autoguidance_scale=0.0))
    assert make_plan(left_out, bundle).fingerprint == plain.fingerprint != guided.fingerprint


def test_the_guide_under_another_name_is_still_no_judge(config):
    from synfer_ray.config import ExpertConfig

    alias = ExpertConfig(path=f"{config.bundle}/experts/guide")
    with pytest.raises(InputError, match=r"'other' is the same model as guide"):
        generate(replace(config, experts={"other": alias}, voters=["feranno", "other"]))


def test_damaged_weights_end_the_run_with_a_plain_message(config, two_cpus, tmp_path):
    import torch
    from safetensors.torch import load_file, save_file

    bundle = tmp_path / "damaged"
    shutil.copytree(config.bundle, bundle)
    path = bundle / "unet" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["conv_in.weight"][0] = torch.nan
    save_file(weights, path, metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"not finite: conv_in\.weight"):
        generate(replace(config, bundle=str(bundle), output=str(tmp_path / "out")))


def test_shards_keep_their_place_in_a_resumed_run():
    assert shards_of([0, 1, 2, 3, 4], 2) == [[0, 1], [2, 3], [4]]
    assert shards_of([1, 4, 5, 9], 2) == [[1], [4, 5], [9]]
    assert Counter(index for shard in shards_of(range(100), 7) for index in shard) == Counter(range(100))
