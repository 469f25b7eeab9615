import io
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from synfer_ray.calibration.wholeness import WholenessNet
from synfer_ray.config import GenerateConfig, GuidanceConfig, LayoutConfig, SamplingConfig
from synfer_ray.errors import InputError
from synfer_ray.faces.images import decode_image
from synfer_ray.plan import Plan, plan_row
from synfer_ray.stages.image_generator import ImageGenerator, expression_targets
from synfer_ray.stages.sample_rows import sample_rows
from synfer_ray.storage.weights import save_model
from synfer_ray.taxonomy.expressions import EXPRESSIONS
from tests.tiny import tiny_taesd
from tests.tiny_bundle import save_tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return save_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


@pytest.fixture
def config(bundle, tmp_path):
    sampling = SamplingConfig(num_inference_steps=3)
    return GenerateConfig(
        output=str(tmp_path), bundle=str(bundle), sampling=sampling, batch_size=3, shard_rows=3, overlays=0
    )


def generate(config, indices, layouts=None):
    plan = Plan(config, {"model": "m", "adapter": "a"}, layouts)
    rows = [asdict(plan_row(plan, index)) for index in indices]
    table = ImageGenerator(config)(sample_rows(rows, config.voters))
    return table.drop_columns("generate_seconds").to_pylist()


def test_a_row_depends_on_its_plan_alone(config):
    together = {row["index"]: row for row in generate(config, range(7))}
    for indices in ([5], [6, 2], [1, 6, 0, 3]):
        for row in generate(config, indices):
            assert row == together[row["index"]]


@pytest.mark.parametrize("mode", ["partial_noise", "ddim_inversion"])
def test_layouts_change_the_image_and_are_recorded(config, mode):
    with_layout = replace(config, layout=LayoutConfig(mode=mode, strength=0.7))
    (plain,) = generate(config, [0])
    (row,) = generate(with_layout, [0], layouts=("tiny/layout", 5))
    assert row["layout_source"].startswith("tiny/layout-") and plain["layout_source"] is None
    assert row["image"]["bytes"] != plain["image"]["bytes"]


def test_guidance_changes_the_image(config):
    (unguided,) = generate(replace(config, guidance=GuidanceConfig(guide=None)), [1])
    (guided,) = generate(replace(config, guidance=GuidanceConfig(start=0.0)), [1])
    assert guided["image"]["bytes"] != unguided["image"]["bytes"]


def test_a_negative_prompt_takes_the_place_of_the_empty_one(config):
    sampling = replace(config.sampling, guidance_scale=2.0)
    without = replace(config, guidance=GuidanceConfig(guide=None), sampling=sampling)
    sampling = replace(sampling, negative_prompt="a sad person")
    (plain,) = generate(without, [1])
    (negative,) = generate(replace(without, sampling=sampling), [1])
    assert negative["image"]["bytes"] != plain["image"]["bytes"]


def test_a_tiny_autoencoder_in_the_bundle_shows_the_guide_its_image(config, bundle, tmp_path):
    guided = replace(config, guidance=GuidanceConfig(start=0.0))
    (plain,) = generate(guided, [1])
    other = shutil.copytree(bundle, tmp_path / "other")
    tiny_taesd().save_pretrained(other / "preview")
    (previewed,) = generate(replace(guided, bundle=str(other)), [1])
    (switched_off,) = generate(
        replace(guided, bundle=str(other), guidance=GuidanceConfig(start=0.0, preview=False)), [1]
    )
    assert previewed["image"]["bytes"] != plain["image"]["bytes"]
    assert previewed["guidance_skipped"] == 0
    assert switched_off["image"]["bytes"] == plain["image"]["bytes"]


def test_half_precision_that_overflows_is_a_counted_reject_and_no_black_image(config, bundle, tmp_path):
    """As Stable Diffusion's autoencoders do in float16 on some inputs: values above 65504 become infinite."""
    from safetensors.torch import load_file, save_file

    other = shutil.copytree(bundle, tmp_path / "other")
    path = other / "vae" / "diffusion_pytorch_model.safetensors"
    weights = load_file(path)
    weights["decoder.conv_in.weight"] *= 60000 / weights["decoder.conv_in.weight"].abs().max()
    save_file(weights, path, metadata={"format": "pt"})
    unguided = replace(config, bundle=str(other), guidance=GuidanceConfig(guide=None))
    assert [row["reason"] for row in generate(unguided, range(3))] == [None] * 3
    half = generate(replace(unguided, dtype="float16"), range(3))
    assert [(row["stage"], row["reason"], row["image"]) for row in half] == [
        ("generate", "not_finite", None)
    ] * 3


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_guidance_and_feranno_work_in_half_precision(config, dtype):
    rows = generate(replace(config, dtype=dtype, guidance=GuidanceConfig(start=0.0)), range(3))
    assert [(row["reason"], row["guidance_skipped"]) for row in rows] == [(None, 0)] * 3
    assert all(sum(row["voter_feranno"]) == pytest.approx(1.0) for row in rows)


def test_overlays_are_written_for_the_first_rows_only(config, tmp_path):
    generate(replace(config, overlays=2), range(4))
    assert sorted(path.name for path in (tmp_path / "overlays").iterdir()) == [
        "000000_neutral.png",
        "000001_happy.png",
    ]


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (torch.full((3, 8, 8), float("nan")), "not_finite"),
        (torch.full((3, 8, 8), float("inf")), "not_finite"),
        (torch.full((3, 8, 8), -1.0), "black"),
        (torch.full((3, 8, 8), 0.3), "flat"),
    ],
)
def test_images_that_show_nothing_are_rejected(config, image, reason):
    row = ImageGenerator(config).finish(image, {"sample_id": "x"})
    assert (row["stage"], row["reason"]) == ("generate", reason)
    assert ("image" in row) == (reason != "not_finite")


@pytest.fixture
def picky(config, bundle, tmp_path):
    """A bundle that calls some faces whole and others broken."""
    network = WholenessNet(input_size=32, channels=(8, 8, 16))
    torch.manual_seed(0)
    for parameter in network.head.parameters():
        torch.nn.init.normal_(parameter)
    other = shutil.copytree(bundle, tmp_path / "picky")
    save_model(network, other / "wholeness")
    return replace(config, bundle=str(other))


def test_faces_that_are_not_whole_are_rejected_and_keep_their_image(config, picky):
    def kept(rows):
        return [row["index"] for row in rows if row["reason"] is None]

    seen = generate(replace(picky, min_wholeness=1e-9), range(9))
    least = float(np.median([row["wholeness"] for row in seen]))
    rows = generate(replace(picky, min_wholeness=least), range(9))
    assert kept(rows) == [row["index"] for row in seen if row["wholeness"] >= least]
    for row, plain in zip(rows, generate(config, range(9))):
        assert row["image"]["bytes"] == plain["image"]["bytes"]
        assert row["voter_feranno"] == plain["voter_feranno"]
        assert plain["wholeness"] is None
        if row["reason"]:
            assert (row["stage"], row["reason"]) == ("generate", "broken")
            assert row["detail"] == f"wholeness {row['wholeness']:.2f}"
    unseen = generate(replace(picky, min_wholeness=0.0), range(9))
    assert len(kept(unseen)) == 9 and {row["wholeness"] for row in unseen} == {None}


@torch.no_grad()
def readings(network, rows) -> torch.Tensor:
    images = np.stack([np.asarray(Image.open(io.BytesIO(row["image"]["bytes"]))) for row in rows])
    return network.eval()(torch.from_numpy(images).permute(0, 3, 1, 2) / 127.5 - 1)[1]


def test_faces_that_do_not_show_clearly_what_was_asked_for_are_rejected(config, picky):
    network = WholenessNet(reads=True, input_size=32, channels=(8, 8, 16))
    torch.manual_seed(3)
    for parameter in network.head.parameters():
        torch.nn.init.normal_(parameter)
    save_model(network, Path(picky.bundle) / "wholeness")
    seen = generate(replace(picky, min_wholeness=0.0, min_readability=1e-9), range(9))
    readable = [row["readability"] for row in seen]
    assert all(0 < value < 1 for value in readable) and len(set(readable)) > 5
    shares = [float(read[row["assigned_label"]]) for read, row in zip(readings(network, seen), seen)]
    np.testing.assert_allclose(readable, shares, atol=0.02)  # of the images before they are rounded

    mixed = replace(picky, min_wholeness=0.0, min_readability=1e-9, compound_share=1.0)
    either = generate(replace(mixed, compounds=["sadly angry"]), range(3))
    parts = readings(network, either)[:, [EXPRESSIONS.index("sad"), EXPRESSIONS.index("anger")]].sum(1)
    np.testing.assert_allclose([row["readability"] for row in either], parts, atol=0.02)

    least = float(np.median(readable))
    for row, value in zip(
        generate(replace(picky, min_wholeness=0.0, min_readability=least), range(9)), readable
    ):
        assert row["readability"] == value
        expected = (None, None) if value >= least else ("unclear", f"readability {value:.2f}")
        assert (row["reason"], row["detail"]) == expected


@pytest.mark.parametrize(("encoding", "tolerance"), [("png", 0), ("webp", 0), ("jpeg", 40)])
def test_images_are_encoded_as_asked(config, encoding, tolerance):
    torch.manual_seed(0)
    image = torch.nn.functional.interpolate(torch.rand(1, 3, 4, 4) * 2 - 1, size=(16, 16), mode="bilinear")[0]
    row = ImageGenerator(replace(config, image_format=encoding)).finish(image, {"sample_id": "x"})
    expected = ((image + 1) * 127.5).round().permute(1, 2, 0).numpy()
    assert row["image"]["path"] == f"x.{encoding}"
    decoded = np.asarray(decode_image(row["image"]["bytes"]), dtype=float)
    assert np.abs(decoded - expected).max() <= tolerance


def test_targets_share_the_weight_of_a_compound_expression():
    rows = [{"assigned_label": 1, "compound": None}, {"assigned_label": 2, "compound": "sadly angry"}]
    happy, mixed = expression_targets(rows)
    assert happy.tolist() == [0, 1, 0, 0, 0, 0, 0]
    assert {EXPRESSIONS[i]: float(value) for i, value in enumerate(mixed) if value} == {
        "sad": 0.5,
        "anger": 0.5,
    }


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"image_size": 30}, "30"), ({"guidance": GuidanceConfig(guide="nobody")}, "nobody.*guide")],
)
def test_wrong_settings_are_named(config, settings, message):
    with pytest.raises(InputError, match=message):
        generate(replace(config, **settings), [0])
