"""The language model that the settings describe: checked, named by its content, and opened."""

import os
import re

from pydantic import SecretStr

from synfer_ray.config import DTYPES, LanguageModelConfig
from synfer_ray.config.language import ENDPOINT, WRITERS
from synfer_ray.errors import InputError, choose
from synfer_ray.language.questions import LanguageModel
from synfer_ray.storage.fingerprint import fingerprint, fingerprint_folder
from synfer_ray.storage.hub import local_folder

FILES = ("*.json", "*.safetensors", "*.model", "*.jinja", "merges.txt")
"""What is copied of a language model on the hub: no code, no pickles."""
URL = re.compile(r"https?://([\w.-]+|\[[0-9a-fA-F:]+\])(:\d{1,5})?(/[\w./~-]*)?")
LEASTS = {
    "max_words": 5,
    "max_new_tokens": 1,
    "attempts": 1,
    "batch_size": 1,
    "num_threads": 1,
    "concurrency": 1,
    "retries": 0,
    "temperature": 0,
}


def check_language_model(config: LanguageModelConfig, name: str) -> None:
    """Refuses settings that make no sense.

    Args:
        name: of the setting, `captioner` or `enricher`.

    Raises:
        InputError: naming the setting.
    """
    choose(config.kind, WRITERS, f"{name}.kind")
    if not config.is_model:
        return
    if not config.model:
        raise InputError(f"{name}.kind={config.kind} needs {name}.model")
    choose(config.dtype, DTYPES, f"{name}.dtype")
    for key, least in LEASTS.items():
        if not getattr(config, key) >= least:
            raise InputError(f"{name}.{key}={getattr(config, key)}; at least {least} is needed")
    if not config.timeout > 0 or not 0 < config.top_p <= 1:
        raise InputError(f"{name}.timeout={config.timeout} {name}.top_p={config.top_p}: > 0, and at most 1")
    if config.kind == ENDPOINT:
        if not URL.fullmatch(config.url):
            raise InputError(f"{name}.url={config.url!r} is not of the form http://HOST:PORT/v1")
        api_key(config)


def api_key(config: LanguageModelConfig) -> SecretStr:
    """Returns the key in the environment, possibly empty; it travels to the actors, but into no file or log.

    Raises:
        InputError: the variable that the settings name is not set.
    """
    key = os.environ.get(config.token_env, "")
    if config.token_env and not key:
        raise InputError(f"the environment variable {config.token_env}, named by token_env, is not set")
    return SecretStr(key)


def model_fingerprint(config: LanguageModelConfig, instruction: str) -> str:
    """Names the model and what it is told to do. A model on an endpoint is known by its name alone.

    Raises:
        InputError: the folder or hub repository of the model is out of reach.
    """
    model = config.model
    if config.kind != ENDPOINT:
        folder = local_folder(config.model, FILES)
        is_commit = folder.parent.name == "snapshots"  # the hub's cache names folders by their content
        model = folder.name if is_commit else fingerprint_folder(folder)
    return fingerprint({"model": model, "instruction": instruction})


def open_model(config: LanguageModelConfig, key: SecretStr, sees: bool) -> LanguageModel:
    """Opens the model.

    Args:
        key: of the endpoint.
        sees: whether questions come with images.

    Raises:
        InputError: it does not load.
    """
    if config.kind == ENDPOINT:
        from synfer_ray.language.endpoint import Endpoint

        return Endpoint(config, key)
    from synfer_ray.language.local import LocalModel

    return LocalModel(config, local_folder(config.model, FILES), sees)
