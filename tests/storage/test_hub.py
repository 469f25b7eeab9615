import json
from pathlib import Path

import pytest

from synfer_ray.errors import InputError
from synfer_ray.storage.bundle import find_bundle, pin_bundle
from synfer_ray.storage.hub import check_stable_diffusion, is_hub_id
from tests.tiny_bundle import save_tiny_bundle


def write(folder: Path, name: str, content: dict) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(json.dumps(content))


def test_ids_are_told_from_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    assert is_hub_id("stable-diffusion-v1-5/stable-diffusion-v1-5") and is_hub_id("owner/name@v1.0")
    for name in ("fer64", "runs/mine", "./runs/other", "../x", "/a/b", "a/b/c", "s3://bucket/model"):
        assert not is_hub_id(name)


def test_a_model_of_the_hub_is_a_bundle_pinned_to_its_commit(tmp_path, monkeypatch):
    commit = "451f4fe16113bff5a5d2269ed5ad43b0592e9a14"
    snapshot = save_tiny_bundle(tmp_path / "models--owner--name" / "snapshots" / commit)
    asked = []

    def download(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        if "unet/diffusion_pytorch_model.safetensors" in allow_patterns:
            assert "feranno/*" in allow_patterns
            asked.append((name, revision))
        return str(snapshot)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert find_bundle("owner/name") == snapshot
    assert pin_bundle("owner/name@main") == f"owner/name@{commit}"
    assert pin_bundle(f"owner/name@{commit}") == f"owner/name@{commit}"
    assert asked == [("owner/name", None), ("owner/name", "main"), ("owner/name", commit)]
    assert pin_bundle("fer64") == "fer64"


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("text_encoder_2/config.json", {}, "Stable Diffusion XL.*two text encoders.*pooled.*time ids"),
        ("unet/config.json", {"addition_embed_type": "text_time"}, "Stable Diffusion XL"),
        ("transformer/config.json", {}, "transformer in place of the U-Net"),
    ],
)
def test_models_of_other_families_are_refused_with_the_reason(tmp_path, file, content, message):
    write(tmp_path, "unet/config.json", {})
    check_stable_diffusion(tmp_path)
    write(tmp_path, file, content)
    with pytest.raises(InputError, match=f"{message}.*only Stable Diffusion 1.x and 2.x"):
        find_bundle(str(tmp_path))


def test_no_weights_of_another_family_are_fetched(tmp_path, monkeypatch):
    write(tmp_path, "text_encoder_2/config.json", {})

    def download(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        assert allow_patterns == ["model_index.json", "*/config.json"]
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(InputError, match="Stable Diffusion XL"):
        find_bundle("stabilityai/stable-diffusion-xl-base-1.0")
