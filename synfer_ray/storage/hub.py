"""Model folders that may live on the Hugging Face hub."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from synfer_ray.errors import InputError

MODEL_FILES = (
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "tokenizer/tokenizer_config.json",
    "scheduler/scheduler_config.json",
)
PARTS = (
    "tokenizer",
    "au_adapter",
    "feranno",
    "au_labeler",
    "experts",
    "layouts",
    "preview",
    "au_prior",
    "wholeness",
    "weak_unet",
)
MODEL_AND_PARTS = ("model_index.json", *MODEL_FILES, *(f"{part}/*" for part in PARTS))
"""What is copied of a Stable Diffusion model on the hub."""
HUB_ID = re.compile(r"\w[\w.-]*/\w[\w.-]*(@[\w.-]+)?")


def is_hub_id(name: str) -> bool:
    """Whether a name is `owner/name` or `owner/name@revision`, and not that of a local folder."""
    return HUB_ID.fullmatch(name) is not None and not Path(name).exists()


def local_folder(folder_or_id: str, files: Sequence[str] = ("*.json", "*.safetensors")) -> Path:
    """Returns the folder itself, or the local copy of a hub repository `owner/name` or `owner/name@revision`.

    Args:
        files: patterns of what is copied; code and pickles are not.

    Raises:
        InputError: it is neither a folder nor a repository in reach.
    """
    if (folder := Path(folder_or_id)).is_dir():
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, _, revision = folder_or_id.partition("@")
    try:
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=list(files)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(f"{folder_or_id!r} is neither a folder nor a hub repository in reach") from error


def model_folder(folder_or_id: str) -> Path:
    """Returns the local folder of a Stable Diffusion model; no weights of another family are copied.

    Raises:
        InputError: it is neither a folder nor a repository in reach, or a model of another family.
    """
    check_stable_diffusion(local_folder(folder_or_id, ["model_index.json", "*/config.json"]))
    return local_folder(folder_or_id, MODEL_AND_PARTS)


def check_stable_diffusion(folder: Path) -> None:
    """Refuses a diffusers model of another family than Stable Diffusion 1.x and 2.x.

    Raises:
        InputError: naming what the model needs and would not get here.
    """
    needs = ""
    if (folder / "transformer").is_dir():
        needs = "it has a transformer in place of the U-Net, without the attn2 blocks of the AU adapter"
    elif (folder / "text_encoder_2").is_dir() or _addition_embed_type(folder) == "text_time":
        needs = (
            "a Stable Diffusion XL U-Net reads two text encoders side by side, the pooled embedding of the "
            "second one, and time ids for size and crop"
        )
    if needs:
        raise InputError(f"{folder}: {needs}; only Stable Diffusion 1.x and 2.x are supported")


def _addition_embed_type(folder: Path) -> str | None:
    try:
        return json.loads((folder / "unet" / "config.json").read_text()).get("addition_embed_type")
    except (OSError, ValueError, AttributeError):
        return None  # whoever loads the U-Net will say what is wrong
