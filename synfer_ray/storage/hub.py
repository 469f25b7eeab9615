"""Model folders that may live on the Hugging Face hub."""

from collections.abc import Sequence
from pathlib import Path

from synfer_ray.errors import InputError


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
