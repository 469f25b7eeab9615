import torch
from torch import Tensor

from synfer_ray.calibration.eyes import EyeMatch, overlaid_eyes
from synfer_ray.calibration.networks import prepare

torch.set_num_threads(1)
RIGHT_EYE = (slice(14, 34), slice(33, 55))


def symmetric_faces(count: int, seed: int = 0) -> Tensor:
    """Smooth random faces [count, 3, 64, 64] in [-1, 1] that are their own mirror image."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 1, 16, 16, generator=generator)
    faces = torch.nn.functional.interpolate(coarse, (64, 64), mode="bicubic", antialias=True).clamp(0, 1)
    return ((faces + faces.flip(-1)) - 1).expand(-1, 3, -1, -1).clone()


def gap(faces: Tensor) -> Tensor:
    """The mean difference of the eyes of each face."""
    return overlaid_eyes(prepare(faces, 64))[:, 1].mean((1, 2))


def test_eyes_of_a_symmetric_face_match_wherever_they_are_within_reach():
    faces = symmetric_faces(5)
    torch.testing.assert_close(gap(faces), torch.zeros(5), atol=1e-6, rtol=0)
    moved = faces.clone()
    moved[:, :, :, 32:] = faces[:, :, :, 32:].roll((1, 2), (2, 3))
    assert overlaid_eyes(prepare(moved, 64)).shape == (5, 2, 20, 22)
    torch.testing.assert_close(gap(moved), torch.zeros(5), atol=1e-5, rtol=0)
    moved[:, :, :, 32:] = faces[:, :, :, 32:].roll((5, 0), (2, 3))
    assert (gap(moved) > 0.2).all()


def test_an_eye_of_another_face_or_in_the_dark_does_not_match():
    faces = symmetric_faces(5)
    for change in (lambda eye: eye.roll(1, 0), lambda eye: eye - 0.5):
        changed = faces.clone()
        changed[:, :, *RIGHT_EYE] = change(faces[:, :, *RIGHT_EYE])
        assert (gap(changed) > 0.2).all()


def test_light_and_size_of_the_picture_do_not_matter():
    faces = symmetric_faces(5)
    faces[:, :, *RIGHT_EYE] = faces[:, :, *RIGHT_EYE].roll(1, 0)
    darker, larger = faces / 2 - 0.3, torch.nn.functional.interpolate(faces, (128, 128), mode="bilinear")
    torch.testing.assert_close(gap(darker), gap(faces), atol=0.02, rtol=0.02)
    torch.testing.assert_close(gap(larger), gap(faces), atol=0.05, rtol=0.1)


def test_a_network_learns_which_eyes_match():
    faces = symmetric_faces(160)
    matching = torch.arange(160) % 2
    swapped = faces[:, :, *RIGHT_EYE].roll(2, 0)
    faces[:, :, *RIGHT_EYE] = torch.where(matching.view(-1, 1, 1, 1) == 1, faces[:, :, *RIGHT_EYE], swapped)
    faces += 0.1 * torch.randn(faces.shape, generator=torch.Generator().manual_seed(1))
    torch.manual_seed(0)
    network = EyeMatch(channels=4)
    optimiser = torch.optim.AdamW(network.parameters(), 5e-3)
    for _ in range(40):
        logits = network(faces[:128])[:, 0]
        loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, matching[:128].float())
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    network.eval()
    with torch.no_grad():
        assert ((network(faces[128:])[:, 0] > 0) == (matching[128:] == 1)).float().mean() > 0.9
