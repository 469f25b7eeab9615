import hashlib
from dataclasses import dataclass
from pathlib import Path

import pytest

from synfer_ray.storage.fingerprint import fingerprint, fingerprint_folder


def test_it_is_the_hash_of_sorted_json():
    expected = hashlib.sha256(b'{"a":[1,2],"b":{"c":null}}').hexdigest()[:16]
    assert fingerprint({"b": {"c": None}, "a": (1, 2)}) == expected


def test_order_of_keys_does_not_matter_but_values_do():
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": 1, "b": 2}) != fingerprint({"a": 2, "b": 1})


def test_a_dataclass_counts_as_its_fields():
    @dataclass
    class Settings:
        folder: Path
        steps: int

    assert fingerprint(Settings(Path("a/b"), 4)) == fingerprint({"folder": "a/b", "steps": 4})


@pytest.mark.parametrize("value", [float("nan"), object(), {1, 2}])
def test_what_has_no_json_form_is_refused(value):
    with pytest.raises((TypeError, ValueError)):
        fingerprint({"value": value})


def test_a_folder_is_its_names_and_bytes(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name / "unet").mkdir(parents=True)
        (tmp_path / name / "unet" / "weights").write_bytes(b"1234")
    before = fingerprint_folder(tmp_path / "one")
    assert before == fingerprint_folder(tmp_path / "two")

    (tmp_path / "one" / ".cache").mkdir()
    (tmp_path / "one" / ".cache" / "lock").touch()
    assert fingerprint_folder(tmp_path / "one") == before

    (tmp_path / "two" / "unet" / "weights").rename(tmp_path / "two" / "unet" / "weight")
    assert fingerprint_folder(tmp_path / "two") != before
    (tmp_path / "one" / "unet" / "weights").write_bytes(b"1235")
    assert fingerprint_folder(tmp_path / "one") != before


def test_a_missing_folder_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        fingerprint_folder(tmp_path / "nowhere")
