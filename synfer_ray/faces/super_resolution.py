"""Super-resolution of small faces with any network that spandrel knows (RealESRGAN, SwinIR, GFPGAN, ...).

spandrel needs torchvision, whose build must match that of PyTorch.
"""

import numpy as np
import torch
from PIL import Image

from synfer_ray.errors import InputError, require
from synfer_ray.storage.foreign import read_checkpoint

RESTORATION_SIDE = 512
"""What networks that restore faces rather than enlarge them (GFPGAN, RestoreFormer) have learnt from."""


class SuperResolution:
    """Enlarges RGB images by the checkpoint's own factor.

    A network whose factor is one restores: it gets the image enlarged by a filter to `RESTORATION_SIDE`.

    Raises:
        InputError: spandrel is not installed, or the file is missing, not safe to read, or no model of RGB
            images.
    """

    def __init__(self, checkpoint: str, device: str = "cpu"):
        spandrel = require("spandrel", extra="spandrel")
        weights = read_checkpoint(checkpoint)
        try:
            model = spandrel.ModelLoader(device=device).load_from_state_dict(weights)
        except Exception as error:  # unknown keys fail in as many ways as there are architectures
            reason = " ".join(str(error).split())[:300]
            raise InputError(f"cannot load super-resolution model {checkpoint}: {reason}") from error
        if not isinstance(model, spandrel.ImageModelDescriptor) or model.input_channels != 3:
            raise InputError(f"{checkpoint} is not a super-resolution model of RGB images")
        if not all(value.isfinite().all() for value in weights.values()):
            raise InputError(f"{checkpoint} has weights that are not finite")
        self.model = model.eval()
        self.device = device

    @torch.inference_mode()
    def __call__(self, image: Image.Image) -> Image.Image:
        """Returns the enlarged image."""
        factor = RESTORATION_SIDE / min(image.size)
        if self.model.scale == 1 and factor > 1:
            size = (round(image.width * factor), round(image.height * factor))
            image = image.resize(size, Image.Resampling.LANCZOS)
        pixels = torch.from_numpy(np.array(image)).to(self.device).permute(2, 0, 1)[None] / 255
        enlarged = self.model(pixels)[0].clamp(0, 1).mul(255).round().byte()
        return Image.fromarray(enlarged.permute(1, 2, 0).cpu().numpy())
