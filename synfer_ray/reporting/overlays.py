"""Where the model looked: an attention map as a coloured veil over the image."""

import numpy as np
from PIL import Image

HEAT = np.array([[0, 0, 4], [81, 18, 124], [183, 55, 121], [252, 137, 97], [252, 253, 191]], np.float32)
"""Colours from no to full attention, of rising brightness, so that they also read in grey."""


def heat_overlay(image: Image.Image, attention: np.ndarray, opacity: float = 0.75) -> Image.Image:
    """Lays an attention map over an image of any size.

    Args:
        image: the picture; it keeps its size.
        attention: [H, W] in any range; its smallest value is shown as clear, its largest as brightest. A map
            without contrast leaves the image as it is.
        opacity: how much the strongest attention hides of the image, 0..1.

    Raises:
        ValueError: the map is not two-dimensional or holds values that are not finite.
    """
    attention = np.asarray(attention, np.float32)
    if attention.ndim != 2 or not np.isfinite(attention).all():
        raise ValueError(f"an attention map is a finite [H, W] array, not {attention.shape}")
    span = np.ptp(attention)
    heat = (attention - attention.min()) / span if span > 0 else np.zeros_like(attention)
    smooth = Image.fromarray(heat).resize(image.size, Image.Resampling.BICUBIC)
    heat = np.asarray(smooth).clip(0, 1)  # [H, W] of the image
    stops = np.linspace(0, 1, len(HEAT))
    colour = np.stack([np.interp(heat, stops, HEAT[:, channel]) for channel in range(3)], axis=-1)
    cover = opacity * heat[..., None]
    pixels = np.asarray(image.convert("RGB"), np.float32)
    return Image.fromarray(((1 - cover) * pixels + cover * colour).round().astype(np.uint8))
