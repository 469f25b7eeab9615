"""Super-resolution of small faces with any image network that spandrel knows (RealESRGAN, SwinIR, ...)."""

import numpy as np
import torch
from PIL import Image

from synfer_ray.errors import InputError, require


class SuperResolution:
    """Enlarges RGB images by the checkpoint's own factor.

    Raises:
        InputError: spandrel is not installed, or the file is missing or no model of RGB images.
    """

    def __init__(self, checkpoint: str, device: str = "cpu"):
        spandrel = require("spandrel", extra="spandrel")
        try:
            model = spandrel.ModelLoader(device=device).load_from_file(checkpoint)
        except Exception as error:  # a wrong file fails in as many ways as there are formats
            raise InputError(f"cannot load super-resolution model {checkpoint}: {error}") from error
        if not isinstance(model, spandrel.ImageModelDescriptor) or model.input_channels != 3:
            raise InputError(f"{checkpoint} is not a super-resolution model of RGB images")
        self.model = model.eval()
        self.device = device

    @torch.inference_mode()
    def __call__(self, image: Image.Image) -> Image.Image:
        """Returns the enlarged image."""
        pixels = torch.from_numpy(np.array(image)).to(self.device).permute(2, 0, 1)[None] / 255
        enlarged = self.model(pixels)[0].clamp(0, 1).mul(255).round().byte()
        return Image.fromarray(enlarged.permute(1, 2, 0).cpu().numpy())
