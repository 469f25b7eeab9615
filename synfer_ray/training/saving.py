"""Parts of a pipeline as files: weights in half precision, and nothing of the machine they were made on."""

import json
from pathlib import Path
from typing import Any

from torch import nn

ORIGIN = "_name_or_path"
"""Where a part was loaded from, as diffusers and transformers keep it."""


def save_half(part: Any, folder: Path) -> None:
    """Writes a model of diffusers or transformers, or a scheduler, as a folder of a pipeline."""
    if isinstance(part, nn.Module):
        part.half()
    part.save_pretrained(folder)
    for file in folder.glob("*config.json"):
        config = json.loads(file.read_text())
        config.pop(ORIGIN, None)
        if "dtype" in config:  # transformers would compute in it, where diffusers takes float32 by default
            config["dtype"] = "float32"
        file.write_text(json.dumps(config, indent=2) + "\n")
