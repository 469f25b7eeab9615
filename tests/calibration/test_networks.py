import numpy as np
import pytest
import torch
from PIL import Image

from synfer_ray.calibration.networks import (
    ARCHITECTURES,
    ActionUnitNet,
    FERClassifier,
    luminance,
    prepare,
)
from synfer_ray.errors import InputError
from synfer_ray.storage.weights import load_model, save_model
from synfer_ray.taxonomy.action_units import ACTION_UNITS


def images(count: int = 2, size: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("size", [48, 64, 130])
def test_logits_for_images_of_any_size(architecture: str, size: int) -> None:
    model = ARCHITECTURES[architecture]().eval()
    assert model(images(size=size)).shape == (2, 7)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradient_reaches_every_part_of_the_image(architecture: str) -> None:
    model = ARCHITECTURES[architecture]().eval()
    pixels = images(1).requires_grad_()
    model(pixels)[0, 1].backward()
    assert pixels.grad is not None and pixels.grad.isfinite().all()
    assert (pixels.grad[0, :, 8:56, 8:56] != 0).float().mean() > 0.9


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_rows_do_not_depend_on_their_neighbours(architecture: str) -> None:
    model = ARCHITECTURES[architecture]().eval()
    batch = images(3)
    changed = torch.cat([batch[:1], batch[1:].flip(0) * 0.1])
    torch.testing.assert_close(model(batch)[0], model(changed)[0])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_brightness_and_contrast_do_not_matter(architecture: str) -> None:
    model = ARCHITECTURES[architecture]().eval()
    batch = images()
    torch.testing.assert_close(model(batch), model(batch * 0.5 + 0.2), atol=1e-2, rtol=1e-2)


def test_architectures_differ() -> None:
    def family(model: torch.nn.Module) -> tuple[bool, bool]:
        has_skip = any(name.endswith("skip") for name, _ in model.named_modules())
        depthwise = any(m.groups > 1 for m in model.modules() if isinstance(m, torch.nn.Conv2d))
        return has_skip, depthwise

    families = {name: family(make()) for name, make in ARCHITECTURES.items()}
    assert families == {"residual": (True, False), "separable": (True, True), "plain": (False, False)}


def test_luminance_matches_pillow() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    ours = luminance(torch.from_numpy(rgb).permute(2, 0, 1)[None].float())[0, 0]
    assert np.abs(ours.numpy() - np.asarray(Image.fromarray(rgb).convert("L"))).max() < 1


def test_prepare_resizes_like_pillow_and_standardises() -> None:
    grey = np.random.default_rng(0).normal(size=(96, 96)).astype(np.float32)
    reference = np.asarray(Image.fromarray(grey).resize((48, 48), Image.Resampling.BILINEAR))
    reference = (reference - reference.mean()) / reference.std()
    ours = prepare(torch.from_numpy(grey).expand(1, 3, 96, 96), 48)[0, 0].numpy()
    np.testing.assert_allclose(ours, reference, atol=2e-3)


def test_a_flat_image_gives_finite_logits_and_gradients() -> None:
    pixels = torch.zeros(1, 3, 48, 48, requires_grad=True)
    FERClassifier("plain").eval()(pixels).sum().backward()
    assert pixels.grad is not None and pixels.grad.isfinite().all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_classifier_survives_disk_with_its_temperature(architecture: str, tmp_path) -> None:
    model = FERClassifier(architecture, dropout=0.1).eval()
    model.temperature = 1.7
    save_model(model, tmp_path)
    loaded = load_model(FERClassifier, tmp_path)
    assert loaded.config == model.config
    assert torch.equal(loaded(images()), model(images()))
    torch.testing.assert_close(loaded(images()) * 1.7, loaded.network(images()))


def test_unknown_architecture_is_named() -> None:
    with pytest.raises(InputError, match=r"residuel.*residual"):
        FERClassifier("residuel")


def test_action_unit_net_marks_unsupported_units_unknown(tmp_path) -> None:
    model = ActionUnitNet(supported=["AU12", "AU01"]).eval()
    save_model(model, tmp_path)
    labels = load_model(ActionUnitNet, tmp_path).label(images())
    known = [ACTION_UNITS.index("AU01"), ACTION_UNITS.index("AU12")]
    assert labels.shape == (2, 41) and labels.isnan().sum() == 2 * 39
    assert ((labels[:, known] > 0) & (labels[:, known] < 1)).all()
    torch.testing.assert_close(labels[:, known], model(images())[:, known])


def test_a_network_learns_from_a_few_images() -> None:
    torch.manual_seed(0)
    model, labels = FERClassifier("plain", dropout=0.0), torch.arange(7)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    batch = images(7, size=48)
    for _ in range(30):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(batch), labels).backward()
        optimizer.step()
    assert (model(batch).argmax(1) == labels).all()
