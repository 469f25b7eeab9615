import os
import pickle
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from synfer_ray.errors import InputError
from synfer_ray.storage.foreign import import_weights, read_checkpoint


def weights() -> dict[str, torch.Tensor]:
    return {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a = nn.Linear(3, 2)


class Recorder:
    """Stands in for the training recorders of POSTER++, which hold NumPy arrays."""

    def __init__(self):
        self.epoch_losses = np.zeros((3, 2), dtype=np.float32)
        self.best = np.float64(0.5)


class Poison:
    """Unpickled carelessly, writes a file."""

    def __init__(self, canary: Path):
        self.canary = canary

    def __reduce__(self):
        return os.system, (f"touch {self.canary}",)


@pytest.fixture
def recorders(monkeypatch):
    """Two recorders whose classes are `__main__.RecorderMeter` and `__main__.RecorderMeter1`."""
    made = []
    for name in ("RecorderMeter", "RecorderMeter1"):
        cls = type(name, (Recorder,), {"__module__": "__main__"})
        monkeypatch.setattr(sys.modules["__main__"], name, cls, raising=False)
        made.append(cls())
    return made


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"epoch": 3, "state_dict": state}])
def test_pickles_are_read_whatever_surrounds_the_weights(tmp_path, zipped, wrap):
    prefixed = {f"module.{key}": value for key, value in weights().items()}
    torch.save(wrap(prefixed), tmp_path / "m.pth", _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(tmp_path / "m.pth")
    assert found.keys() == weights().keys()
    assert all(torch.equal(found[key], value) for key, value in weights().items())


def test_safetensors_are_read(tmp_path):
    save_file(weights(), tmp_path / "m.safetensors")
    assert torch.equal(read_checkpoint(tmp_path / "m.safetensors")["a.weight"], weights()["a.weight"])


@pytest.mark.parametrize("zipped", [True, False])
def test_recorders_beside_the_weights_become_placeholders(tmp_path, recorders, zipped):
    content = {"state_dict": weights(), "recorder": recorders[0], "recorder1": recorders[1], "best_acc": 1.0}
    torch.save(content, tmp_path / "m.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(pickle.UnpicklingError, match="Recorder"):
        torch.load(tmp_path / "m.pth", weights_only=True)
    assert read_checkpoint(tmp_path / "m.pth").keys() == weights().keys()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("place", ["beside", "inside a recorder", "instead"])
def test_a_poisoned_pickle_runs_nothing(tmp_path, recorders, zipped, place):
    canary, path = tmp_path / "canary", tmp_path / "m.pth"
    poison = Poison(canary)
    recorders[0].inside = poison
    content = {
        "beside": {"state_dict": weights(), "extra": poison},
        "inside a recorder": {"state_dict": weights(), "recorder": recorders[0]},
        "instead": poison,
    }[place]
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"m\.pth is no checkpoint of plain tensors.*GLOBAL .*system"):
        read_checkpoint(path)
    assert not canary.exists()
    torch.load(path, weights_only=False)  # it would have
    assert canary.exists()


def test_a_class_called_like_a_recorder_is_not_the_one_that_is_built(tmp_path, monkeypatch):
    """The name leads to a placeholder, not to whatever `__main__` holds under it."""
    canary = tmp_path / "canary"

    def set_state(self, state):
        canary.touch()

    impostor = type("RecorderMeter", (), {"__module__": "__main__", "__setstate__": set_state})
    monkeypatch.setattr(sys.modules["__main__"], "RecorderMeter", impostor, raising=False)
    recorder = impostor()
    recorder.value = 1
    torch.save({"state_dict": weights(), "recorder": recorder}, tmp_path / "m.pth")
    read_checkpoint(tmp_path / "m.pth")
    assert not canary.exists()


def test_files_that_are_no_checkpoints_are_named(tmp_path, monkeypatch):
    torch.save({"state_dict": weights()}, tmp_path / "good.pth")
    whole = (tmp_path / "good.pth").read_bytes()
    (tmp_path / "short.pth").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.pth").write_text("not found")
    torch.save(weights()["a.bias"], tmp_path / "bare.pth")
    torch.save({"state_dict": weights() | {"lr": 0.1}}, tmp_path / "mixed.pth")
    torch.save({"w": torch.eye(2).to_sparse()}, tmp_path / "sparse.pth")
    with (
        zipfile.ZipFile(tmp_path / "good.pth") as archive,
        zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as bomb,
    ):
        for entry in archive.namelist():
            bomb.writestr(entry, archive.read(entry))
    for name, message in {
        "absent.pth": "missing model file",
        "short.pth": "no checkpoint of plain tensors",
        "text.pth": "no checkpoint of plain tensors",
        "bare.pth": "no weights by name but a Tensor",
        "mixed.pth": r"'lr' is no plain tensor \(1 of 3 keys\)",
        "sparse.pth": "'w' is no plain tensor",
        "bomb.pth": "is compressed",
    }.items():
        with pytest.raises(InputError, match=rf"{name}.*{message}|{message}.*{name}"):
            read_checkpoint(tmp_path / name)
    monkeypatch.setattr("synfer_ray.storage.foreign.MAX_CHECKPOINT_BYTES", 100)
    with pytest.raises(InputError, match="larger than"):
        read_checkpoint(tmp_path / "good.pth")


def test_entries_that_share_their_bytes_are_refused(tmp_path):
    """A thousand directory entries of one megabyte of data would fill a gigabyte."""
    path = tmp_path / "m.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("m/data/0", bytes(2**20))
        archive.filelist *= 1000
    assert path.stat().st_size < 2**21
    with pytest.raises(InputError, match="its entries overlap"):
        read_checkpoint(path)


def test_keys_are_reported_and_mismatches_named():
    report = import_weights(
        Net(), weights() | {"old.head": torch.ones(1), "old.body": torch.ones(1)}, "f", ["old."]
    )
    assert str(report) == "f: loaded 2 tensors, missing 0, unexpected 0, not needed 2 (old.body, old.head)"
    huge = torch.ones(1).expand(10**6, 10**6)  # four bytes in a file
    for changed, message in [
        ({"a.bias": None, "b.bias": torch.ones(2)}, r"missing: a\.bias \(1 in all\); unexpected: b\.bias"),
        ({"a.weight": huge}, r"wrong shape: a\.weight \(1000000, 1000000\) instead of \(2, 3\)"),
        ({"a.bias": torch.tensor([1.0, torch.nan])}, r"not finite: a\.bias"),
    ]:
        changed = {key: value for key, value in (weights() | changed).items() if value is not None}
        with pytest.raises(InputError, match=f"f does not fit Net: {message}"):
            import_weights(Net(), changed, "f")
