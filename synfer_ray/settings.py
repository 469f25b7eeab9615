"""Reads a job's settings, `--config x.yaml key.sub=value`, and checks them against its dataclass."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import ConfigKeyError, OmegaConfBaseException

from synfer_ray.errors import InputError, nearest

Schema = TypeVar("Schema")


def load_config(schema: type[Schema], path: str | None = None, overrides: Sequence[str] = ()) -> Schema:
    """Merges the schema's defaults, a YAML file and `key=value` overrides, in this order.

    Raises:
        InputError: the file is missing, a key is unknown (with the nearest one) or a value has a wrong type.
    """
    layers = [_read_yaml(path)] if path else []
    for override in overrides:
        if "=" not in override:
            raise InputError(f"override {override!r} is not of the form key=value")
    return merge_config(schema, *layers, OmegaConf.from_dotlist(list(overrides)))


def merge_config(schema: type[Schema], *layers: Any) -> Schema:
    """Merges mappings or settings objects over the schema's defaults, later ones over earlier ones.

    Raises:
        InputError: a key is unknown (with the nearest one), or a value has a wrong type.
    """
    defaults = OmegaConf.structured(schema)
    try:
        return OmegaConf.to_object(OmegaConf.merge(defaults, *layers))  # type: ignore[return-value]
    except ConfigKeyError as error:
        key = str(error.full_key or error.key)
        raise InputError(f"unknown config key {key!r}{nearest(key, _keys(defaults))}") from error
    except OmegaConfBaseException as error:
        place = str(error.full_key)
        if isinstance(OmegaConf.select(defaults, place), ListConfig):
            raise InputError(f"config: {place} is a list: '{place}=[...]', commas between entries") from error
        raise InputError(f"config: {str(error).splitlines()[0]} (key {place!r})") from error


def describe(schema: type) -> str:
    """Returns the settings of a job with their defaults as YAML."""
    return OmegaConf.to_yaml(OmegaConf.structured(schema))


def _read_yaml(path: str) -> DictConfig:
    if not Path(path).is_file():
        raise InputError(f"missing config file: {path}")
    return OmegaConf.load(path)  # type: ignore[return-value]


def _keys(config: DictConfig, prefix: str = "") -> Iterator[str]:
    for key in config:
        name = str(key)
        yield prefix + name
        if isinstance(child := OmegaConf.select(config, name), DictConfig):
            yield from _keys(child, f"{prefix}{name}.")
