"""Random views of face batches, drawn from a generator so that a resumed training repeats them."""

import torch
import torch.nn.functional as F
from torch import Tensor

LOOSE_CROP = {"degrees": 15.0, "scale": 0.2, "shift": 0.08}
"""How far a random view may be from an aligned face: as detectors and people cut them."""
STEADY_CROP = {"degrees": 3.0, "scale": 0.03, "shift": 0.02}
"""So little that what is looked for in a place is still there."""


def random_flip(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Mirrors half of the images [B,3,H,W]; also returns which ones [B]."""
    flipped = torch.rand(len(images), generator=generator, device=images.device) < 0.5
    return torch.where(flipped[:, None, None, None], images.flip(-1), images), flipped


def random_affine(
    images: Tensor,
    generator: torch.Generator,
    degrees: float = 10.0,
    scale: float = 0.1,
    shift: float = 0.06,
) -> Tensor:
    """Rotates, scales and shifts each image [B,3,H,W] a little, repeating the border."""
    size = len(images)

    def uniform(limit: float) -> Tensor:
        return (torch.rand(size, generator=generator, device=images.device) * 2 - 1) * limit

    angle, zoom = torch.deg2rad(uniform(degrees)), 1 + uniform(scale)
    cosine, sine = zoom * torch.cos(angle), zoom * torch.sin(angle)
    rows = [
        torch.stack([cosine, -sine, uniform(2 * shift)], 1),
        torch.stack([sine, cosine, uniform(2 * shift)], 1),
    ]
    grid = F.affine_grid(torch.stack(rows, 1), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="border", align_corners=False)


def random_light(images: Tensor, generator: torch.Generator, strength: float = 0.3) -> Tensor:
    """Changes contrast and brightness of each image [B,3,H,W] in [-1,1]."""
    shape = (len(images), 1, 1, 1)
    gain = 1 + strength * (2 * torch.rand(shape, generator=generator, device=images.device) - 1)
    offset = strength * (2 * torch.rand(shape, generator=generator, device=images.device) - 1)
    return (images * gain + offset).clamp(-1, 1)


def from_uint8(images: Tensor) -> Tensor:
    """Turns uint8 images [B,H,W,3] into floats [B,3,H,W] in [-1,1]."""
    return images.permute(0, 3, 1, 2).float() / 127.5 - 1
