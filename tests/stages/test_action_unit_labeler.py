import numpy as np
import torch

from synfer_ray.calibration.networks import ActionUnitNet
from synfer_ray.faces.images import encode_image
from synfer_ray.stages.action_unit_labeler import ActionUnitLabeler
from synfer_ray.stages.face_rows import face_rows, face_table
from synfer_ray.storage.weights import save_model
from synfer_ray.taxonomy.action_units import ACTION_UNITS
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
    first, rejected, third = face_rows(ActionUnitLabeler(str(tmp_path))(table))
    assert rejected["action_units"] is None
    for row, seed in ((first, 0), (third, 2)):
        pixels = torch.tensor(np.asarray(picture(seed))).float().permute(2, 0, 1)[None] / 127.5 - 1
        expected = network.label(pixels)[0].numpy()
        assert np.allclose(row["action_units"], expected, atol=1e-5, equal_nan=True)
        known = [name for name, value in zip(ACTION_UNITS, row["action_units"]) if not np.isnan(value)]
        assert known == ["AU04", "AU12"]
