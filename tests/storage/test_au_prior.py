import numpy as np
import pytest
from safetensors.numpy import save_file

from synfer_ray.errors import InputError
from synfer_ray.storage.au_prior import FILE, read_au_prior, write_au_prior
from synfer_ray.taxonomy.expressions import EXPRESSIONS


def readings(**changes) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    faces = {name: rng.random((count, 41), np.float32) for count, name in enumerate(EXPRESSIONS, start=1)}
    faces["sad"][0, 3] = np.nan
    return faces | changes


def test_what_is_written_is_read(tmp_path):
    write_au_prior(tmp_path / "au_prior", readings())
    found = read_au_prior(tmp_path / "au_prior")
    assert list(found) == list(EXPRESSIONS)
    for name, faces in readings().items():
        assert found[name].dtype == np.float32
        np.testing.assert_allclose(found[name], faces, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fear": np.zeros((0, 41))}, r"\(0, 41\) for fear"),
        ({"fear": np.zeros((2, 40))}, r"\(2, 40\) for fear"),
        ({"fear": np.zeros(41)}, r"\(41,\) for fear"),
        ({"fear": np.full((1, 41), 1.5)}, r"intensities of fear are not all in \[0, 1\]"),
    ],
)
def test_readings_that_are_none_are_refused(tmp_path, changes, message):
    write_au_prior(tmp_path, readings(**changes))
    with pytest.raises(InputError, match=message):
        read_au_prior(tmp_path)


def test_every_expression_is_needed(tmp_path):
    faces = readings()
    del faces["anger"]
    write_au_prior(tmp_path, faces)
    with pytest.raises(InputError, match="for anger"):
        read_au_prior(tmp_path)


def test_a_missing_or_damaged_file_is_bad_input(tmp_path):
    with pytest.raises(InputError, match="missing or damaged"):
        read_au_prior(tmp_path)
    (tmp_path / FILE).write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00nonsense")
    with pytest.raises(InputError, match="missing or damaged"):
        read_au_prior(tmp_path)
    save_file({name: np.array(["x"]).view(np.uint8) for name in EXPRESSIONS}, tmp_path / FILE)
    with pytest.raises(InputError, match="is needed"):
        read_au_prior(tmp_path)
