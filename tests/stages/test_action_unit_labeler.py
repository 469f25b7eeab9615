import numpy as np
import pytest
import torch

from synfer_ray.calibration.networks import ActionUnitNet
from synfer_ray.calibration.published.open_graph_au import load_open_graph_au
from synfer_ray.config import FETextConfig
from synfer_ray.errors import InputError
from synfer_ray.faces.images import encode_image
from synfer_ray.stages.action_unit_labeler import ActionUnitLabeler
from synfer_ray.stages.face_rows import face_rows, face_table
from synfer_ray.storage.weights import save_model
from synfer_ray.taxonomy.action_units import ACTION_UNITS
from tests.calibration.published.layouts import open_graph_au, random_weights, save_pickle
from tests.faces.pictures import picture


def test_accepted_rows_get_the_networks_intensities(tmp_path):
    torch.manual_seed(0)
    network = ActionUnitNet(channels=(4, 8), supported=["AU04", "AU12"]).eval()
    save_model(network, tmp_path)
    table = face_table(
        [
            {"index": 0, "image": encode_image(picture(0))},
            {"index": 1, "image": b"", "stage": "filter", "reason": "empty_file"},
            {"index": 2, "image": encode_image(picture(2))},
        ]
    )
    first, rejected, third = face_rows(ActionUnitLabeler(FETextConfig(), str(tmp_path))(table))
    assert rejected["action_units"] is None
    for row, seed in ((first, 0), (third, 2)):
        pixels = torch.tensor(np.asarray(picture(seed))).float().permute(2, 0, 1)[None] / 127.5 - 1
        expected = network.label(pixels)[0].numpy()
        assert np.allclose(row["action_units"], expected, atol=1e-5, equal_nan=True)
        known = [name for name, value in zip(ACTION_UNITS, row["action_units"]) if not np.isnan(value)]
        assert known == ["AU04", "AU12"]


def test_a_released_checkpoint_of_open_graph_au_labels_the_rows(tmp_path):
    path = str(save_pickle(tmp_path / "au.pth", random_weights(open_graph_au("resnet18", 1))))
    table = face_table([{"index": index, "image": encode_image(picture(index))} for index in range(3)])
    kept = [row["action_units"] for row in face_rows(ActionUnitLabeler(FETextConfig(), path)(table))]
    config = FETextConfig(ambiguous_units="unknown")
    cleaned = [row["action_units"] for row in face_rows(ActionUnitLabeler(config, path)(table))]
    network = load_open_graph_au(path)
    for index in range(3):
        pixels = torch.tensor(np.asarray(picture(index))).float().permute(2, 0, 1)[None] / 127.5 - 1
        assert np.allclose(kept[index], network.label(pixels)[0], atol=1e-5)
    unknown = {name for name, value in zip(ACTION_UNITS, cleaned[0]) if np.isnan(value)}
    assert unknown == {"AUL12", "AUR12"}
    same = [place for place, name in enumerate(ACTION_UNITS) if name not in unknown]
    assert np.allclose(np.array(cleaned)[:, same], np.array(kept)[:, same], atol=1e-6)


def test_a_wrong_checkpoint_is_refused_by_the_first_call(tmp_path):
    labeler = ActionUnitLabeler(FETextConfig(), str(save_pickle(tmp_path / "x.pth", {"w": torch.ones(1)})))
    with pytest.raises(InputError, match=r"x\.pth is no OpenGraphAU checkpoint"):
        labeler(face_table([]))
