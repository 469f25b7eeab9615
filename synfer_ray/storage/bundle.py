"""A model bundle on disk: where it is, which experts it holds, and what its parts are known by."""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from synfer_ray.config import ExpertConfig, RemoteModelConfig, SamplingConfig
from synfer_ray.errors import InputError, choose
from synfer_ray.remote.model import open_remote
from synfer_ray.storage.au_prior import AU_PRIOR
from synfer_ray.storage.fingerprint import DIGITS, fingerprint, fingerprint_folder
from synfer_ray.storage.hub import check_stable_diffusion, is_hub_id, local_folder, model_folder
from synfer_ray.storage.local_copy import is_remote, local_copy, pin
from synfer_ray.taxonomy.action_units import ACTION_UNITS

EMBEDDED = Path(__file__).resolve().parent.parent / "bundles"
DIFFUSION_PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")
PREVIEW = "preview"
WHOLENESS = "wholeness"
WEAK_UNET = "weak_unet"
FERANNO = "feranno"
"""The voter that reads the diffusion model's own features; every other one is an expert classifier."""
AUTOGUIDANCE_SCALE = 0.3
"""How strongly a bundle's weak U-Net guides where the settings say nothing."""


def find_bundle(name: str) -> Path:
    """Returns the folder of an embedded bundle (`fer64`), of one on disk, or of a remote one's local copy.

    Any Stable Diffusion 1.x or 2.x model in diffusers layout is a bundle; the other parts may be missing.

    Args:
        name: also a URI, or the id of a repository on the Hugging Face hub.

    Raises:
        InputError: there is no such bundle, or it is a model of another family.
    """
    if is_hub_id(name):
        return model_folder(name)
    for folder in (local_copy(name),) if is_remote(name) else (EMBEDDED / name, Path(name)):
        check_stable_diffusion(folder)
        if (folder / "unet").is_dir():
            return folder
    embedded = sorted(folder.name for folder in EMBEDDED.iterdir() if (folder / "unet").is_dir())
    raise InputError(
        f"no model bundle {name!r}: neither a bundle folder nor embedded ({', '.join(embedded) or 'none'})"
    )


def pin_bundle(name: str) -> str:
    """Returns a name that stands for the bundle's files as they are now, on every node."""
    if is_hub_id(name):  # a snapshot's folder is named after its commit
        return f"{name.partition('@')[0]}@{find_bundle(name).name}"
    return pin(name)


def expert_spec(name: str, bundle: Path, experts: Mapping[str, ExpertConfig]) -> ExpertConfig:
    """Returns the expert of this name: one of the config's `experts`, else one of the bundle's.

    Raises:
        InputError: the name is neither.
    """
    if name in experts:
        return replace(experts[name], name=name)
    folder = bundle / "experts" / name
    if not folder.is_dir():
        known = [*experts, *sorted(path.name for path in (bundle / "experts").glob("*"))]
        raise InputError(f"unknown expert {name!r}; choices: {', '.join([FERANNO, *known])}")
    return ExpertConfig(name=name, path=str(folder))


def bundle_image_size(bundle: Path) -> int:
    """Returns the side in pixels of the images a bundle's model was trained on.

    Raises:
        InputError: the U-Net's or the autoencoder's config.json is missing, or does not say.
    """
    try:
        unet, vae = (json.loads((bundle / part / "config.json").read_text()) for part in ("unet", "vae"))
        return int(unet["sample_size"] * 2 ** (len(vae["block_out_channels"]) - 1))
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise InputError(
            f"{bundle}: no image size in unet/config.json and vae/config.json: {error!r}"
        ) from error


def controlled_action_units(bundle: Path) -> tuple[str, ...]:
    """Returns the action units that the bundle's AU adapter was trained on; all without an adapter.

    Raises:
        InputError: the adapter's config.json does not say.
    """
    config = bundle / "au_adapter" / "config.json"
    if not config.is_file():
        return ACTION_UNITS
    try:
        return tuple(
            choose(name, ACTION_UNITS, "action unit") for name in json.loads(config.read_text())["supported"]
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{config} names no supported action units: {error}") from error


def autoguidance_scale(config: SamplingConfig, has_weak_unet: bool) -> float:
    """Returns how strongly the weak U-Net guides: by default as `AUTOGUIDANCE_SCALE` says if there is one.

    Raises:
        InputError: it is to guide, and there is none; or its settings are no such numbers.
    """
    if not 0 <= config.autoguidance_start <= 1:
        raise InputError(f"sampling.autoguidance_start={config.autoguidance_start} is not in [0, 1]")
    scale = config.autoguidance_scale
    if scale is None:
        return AUTOGUIDANCE_SCALE if has_weak_unet else 0.0
    if not 0 <= scale < math.inf:
        raise InputError(f"sampling.autoguidance_scale={scale}; 0 or more is needed")
    if scale and not has_weak_unet:
        raise InputError(
            f"sampling.autoguidance_scale={scale}, but the bundle has no {WEAK_UNET}/; 0 does without"
        )
    return scale


def model_fingerprints(
    bundle: Path, experts: Sequence[str], specs: Mapping[str, ExpertConfig]
) -> dict[str, str | None]:
    """Returns the fingerprints of the diffusion model, its optional companions and the named experts.

    A bundle may lack the adapter, the preview decoder, the AU prior, the judge of wholeness and the weak
    U-Net: None.

    Raises:
        InputError: a part is missing.
    """
    optional = {"adapter": "au_adapter"} | {name: name for name in (PREVIEW, AU_PRIOR, WHOLENESS, WEAK_UNET)}
    return {
        "model": fingerprint({part: fingerprint_path(bundle / part) for part in DIFFUSION_PARTS}),
        **{
            name: fingerprint_path(bundle / part) if (bundle / part).is_dir() else None
            for name, part in optional.items()
        },
        **{name: expert_fingerprint(name, bundle, specs) for name in experts},
    }


def expert_fingerprint(name: str, bundle: Path, experts: Mapping[str, ExpertConfig]) -> str:
    """Returns the fingerprint of an expert's files; equal ones are the same model, whatever its name.

    An expert on a server is known by its address and by what the server states of the model.

    Raises:
        InputError: there is no such expert, or its server does not answer.
    """
    if name == FERANNO:
        if not (bundle / FERANNO).is_dir():
            raise InputError(f"{bundle} has no {FERANNO}/: train it, or leave {FERANNO} out of voters")
        return fingerprint_path(bundle / FERANNO)
    spec = expert_spec(name, bundle, experts)
    if spec.kind == "triton":
        return _remote_fingerprint(spec.remote)
    return fingerprint_path(local_folder(spec.path) if spec.kind == "transformers" else Path(spec.path))


def _remote_fingerprint(remote: RemoteModelConfig) -> str:
    stated = open_remote(remote).metadata().document
    return fingerprint(
        {"url": remote.url, "model": remote.model, "version": remote.version, "stated": stated}
    )


def fingerprint_path(path: Path) -> str:
    """Returns the fingerprint of a model's file or folder.

    Raises:
        InputError: there is neither.
    """
    if path.is_dir():
        return fingerprint_folder(path)
    if not path.is_file():
        raise InputError(f"missing model file: {path}")
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()[:DIGITS]


def reads_expressions(bundle: Path) -> bool:
    """Whether what judges wholeness has also learnt which expression viewers read.

    Raises:
        InputError: its configuration is damaged.
    """
    path = bundle / WHOLENESS / "config.json"
    try:
        return path.is_file() and bool(json.loads(path.read_text()).get("reads"))
    except (ValueError, AttributeError) as error:
        raise InputError(f"missing or damaged model file: {path}: {error}") from error
