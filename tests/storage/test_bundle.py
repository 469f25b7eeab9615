import shutil

import pytest

from synfer_ray.config import ExpertConfig
from synfer_ray.errors import InputError
from synfer_ray.storage.bundle import (
    bundle_image_size,
    controlled_action_units,
    expert_fingerprint,
    find_bundle,
    model_fingerprints,
)
from synfer_ray.taxonomy.action_units import ACTION_UNITS
from tests.tiny_bundle import save_tiny_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return save_tiny_bundle(tmp_path_factory.mktemp("bundles") / "tiny")


def test_a_bundle_is_found_by_path_and_a_missing_one_is_named(bundle, tmp_path):
    assert find_bundle(str(bundle)) == bundle
    for name in ("fer65", str(tmp_path)):
        with pytest.raises(InputError, match=f"no model bundle '{name}'"):
            find_bundle(name)


def test_the_image_size_follows_from_unet_and_autoencoder(bundle):
    assert bundle_image_size(bundle) == 32


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"sample_size": null}', '{"sample_size": 1e999}'])
def test_a_config_that_gives_no_size_is_refused(bundle, tmp_path, content):
    damaged = shutil.copytree(bundle, tmp_path / "damaged")
    (damaged / "unet" / "config.json").write_text(content)
    with pytest.raises(InputError, match="no image size in unet"):
        bundle_image_size(damaged)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"supported": null}', '{"supported": ["AU99", []]}'])
def test_an_adapter_s_config_must_name_its_action_units(bundle, tmp_path, content):
    assert controlled_action_units(bundle) == ACTION_UNITS
    damaged = shutil.copytree(bundle, tmp_path / "damaged")
    (damaged / "au_adapter" / "config.json").write_text(content)
    with pytest.raises(InputError, match="names no supported action units"):
        controlled_action_units(damaged)


def test_fingerprints_change_with_the_part_that_changed(bundle, tmp_path):
    names = ["feranno", "residual"]
    before = model_fingerprints(bundle, names, {})
    changed = tmp_path / "changed"
    shutil.copytree(bundle, changed)
    (changed / "experts" / "residual" / "config.json").write_text("{}")
    shutil.rmtree(changed / "au_adapter")
    after = model_fingerprints(changed, names, {})
    assert {name for name in before if before[name] != after[name]} == {"residual", "adapter"}
    assert after["adapter"] is None


def test_a_copy_under_another_name_is_the_same_model(bundle, tmp_path):
    shutil.copytree(bundle / "experts" / "guide", tmp_path / "copy")
    experts = {"other": ExpertConfig(path=str(tmp_path / "copy"))}
    assert expert_fingerprint("other", bundle, experts) == expert_fingerprint("guide", bundle, {})
    assert expert_fingerprint("residual", bundle, {}) != expert_fingerprint("guide", bundle, {})


def test_missing_parts_are_named(bundle, tmp_path):
    partial = tmp_path / "partial"
    shutil.copytree(bundle, partial)
    shutil.rmtree(partial / "vae")
    with pytest.raises(InputError, match=r"missing model file: .*vae"):
        model_fingerprints(partial, [], {})
    shutil.rmtree(partial / "feranno")
    with pytest.raises(InputError, match="has no feranno/: train it, or leave feranno out of voters"):
        expert_fingerprint("feranno", partial, {})
    with pytest.raises(InputError, match=r"missing model file: .*nowhere\.onnx"):
        expert_fingerprint("x", bundle, {"x": ExpertConfig(kind="onnx", path=str(tmp_path / "nowhere.onnx"))})
    with pytest.raises(InputError, match=r"unknown expert 'residul'; choices: feranno, guide, residual"):
        expert_fingerprint("residul", bundle, {})
