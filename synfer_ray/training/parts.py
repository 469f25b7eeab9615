"""The parts of a bundle, each trained by one function: what it learns from, what it builds, where it goes."""

import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from synfer_ray.config import FitConfig, TrainingConfig
from synfer_ray.errors import InputError
from synfer_ray.storage.bundle import WEAK_UNET, WHOLENESS
from synfer_ray.storage.fingerprint import fingerprint, fingerprint_folder
from synfer_ray.taxonomy.action_units import ACTION_UNITS
from synfer_ray.training.au_prior import train_au_prior
from synfer_ray.training.builds import (
    build_au_adapter,
    build_au_labeler,
    build_autoencoder,
    build_decoder,
    build_diffusion,
    build_expert,
    build_feranno,
    build_joint,
    build_preference,
    build_preview,
    build_weak_unet,
    build_wholeness,
    empty_ids,
)
from synfer_ray.training.data import (
    label_distributions,
    read_columns,
    repeat_rare,
    silence_unclear,
    training_image_size,
)
from synfer_ray.training.loop import Objective

if TYPE_CHECKING:
    import ray.data


def train_autoencoder(config: TrainingConfig) -> None:
    """Trains `vae/` on the faces."""
    from synfer_ray.training.data import read_faces

    build = partial(build_autoencoder, config.architecture)
    _train(config, "autoencoder", build, read_faces(config.input, ["image"]), config.autoencoder, ["vae"])


def train_decoder(config: TrainingConfig) -> None:
    """Sharpens the decoder of a new bundle's `vae/`; the latents stay what they are.

    Raises:
        InputError: `decoder_draws` is no positive number.
    """
    if config.decoder_draws < 1:
        raise InputError(f"decoder_draws={config.decoder_draws}: the decoder learns from at least one")
    from synfer_ray.training.data import read_faces
    from synfer_ray.training.drawn import draw_latents, lend

    train_au_prior(config)  # the draws follow it
    latents = draw_latents(config)
    build = partial(build_decoder, config.bundle)
    rows = read_faces(config.input, ["image"]).map_batches(partial(lend, latents=latents))
    _train(config, "decoder", build, rows, config.decoder, ["vae"])


def train_diffusion(config: TrainingConfig) -> None:
    """Trains the diffusion model on latents and captions: `unet/`, `text_encoder/`, `scheduler/`.

    Raises:
        InputError: the bundle is a finished model, which must not be overwritten, or `rare_repeats` is no
            positive number, or `clear_share` no share.
    """
    if not config.base and (Path(config.bundle) / "model_index.json").exists():
        raise InputError(
            f"{config.bundle} is a finished model: fine-tune it with base={config.bundle} and another bundle"
        )
    build = partial(build_diffusion, config.bundle, config.architecture, bool(config.base), config.lora_rank)
    rows = _repeated(config, ["latents", "input_ids", "uncued_ids"])
    _train(config, "diffusion", build, rows, config.diffusion, ["text_encoder", "scheduler", "unet"])


def train_au_adapter(config: TrainingConfig) -> None:
    """Trains `au_adapter/` beside the frozen diffusion model."""
    rows = _latents(config, ["latents", "input_ids", "uncued_ids", "action_units"])
    build = partial(build_au_adapter, config.bundle, _labelled_action_units(config))
    _train(config, "au_adapter", build, rows, config.au_adapter, ["au_adapter"])


def train_joint(config: TrainingConfig) -> None:
    """Trains `unet/`, `text_encoder/` and `au_adapter/` on, together.

    Raises:
        InputError: `rare_repeats` is no positive number, or `clear_share` no share.
    """
    rows = _repeated(config, ["latents", "input_ids", "uncued_ids", "action_units"])
    build = partial(build_joint, config.bundle)
    _train(config, "joint", build, rows, config.joint, ["text_encoder", "unet", "au_adapter"])


def train_au_labeler(config: TrainingConfig) -> None:
    """Trains `au_labeler/`, a small network that repeats FEText's action-unit labels."""
    from synfer_ray.training.data import read_faces

    rows = read_faces(config.input, ["image", "action_units"])
    build = partial(build_au_labeler, _labelled_action_units(config))
    _train(config, "au_labeler", build, rows, config.au_labeler, ["au_labeler"])


def train_preview(config: TrainingConfig) -> None:
    """Trains `preview/`, the tiny decoder that semantic guidance looks through."""
    build = partial(build_preview, config.bundle)
    _train(config, "preview", build, _latents(config, ["latents"]), config.preview, ["preview"])


def train_weak_unet(config: TrainingConfig) -> None:
    """Trains `weak_unet/`, which the sampler steers away from.

    Raises:
        InputError: there is no adapter, `rare_repeats` is no positive number, or `clear_share` no share.
    """
    build = partial(build_weak_unet, config.bundle, config.architecture)
    build()  # a missing adapter shows here
    rows = _repeated(config, ["latents", "input_ids", "uncued_ids", "action_units"])
    _train(config, WEAK_UNET, build, rows, config.weak_unet, [WEAK_UNET])


def train_feranno(config: TrainingConfig) -> None:
    """Trains `feranno/` on the frozen U-Net's features at the least noise."""
    rows = _views(config, ["latents", "label_probs"])
    size = training_image_size(config)
    build = partial(build_feranno, config.bundle, _class_share(config), size, config.feranno_head)
    _train(config, "feranno", build, rows, config.feranno, ["feranno"])


def train_experts(config: TrainingConfig) -> None:
    """Trains `experts/<name>/` for each configured expert that the bundle lacks."""
    from synfer_ray.training.data import read_faces

    rows = read_faces(config.input, ["image", "label_probs"])
    for name, recipe in config.experts.items():
        place = f"experts/{name}"
        if not (Path(config.bundle) / place).exists():
            build = partial(build_expert, recipe.architecture, _class_share(config))
            _train(config, f"expert-{name}", build, rows, recipe.fit, [place])


def train_wholeness(config: TrainingConfig) -> None:
    """Trains `wholeness/` on rated samples of the bundle: which are whole and, if told, what they show.

    Raises:
        InputError: there are no ratings, they fit no dataset, or the bundle lacks the expert to start from.
    """
    if not (config.rated and config.ratings):
        raise InputError("rated=[DATASET] ratings=FILE.csv are needed: samples, and how whole each one looks")
    import ray.data

    from synfer_ray.training.data import decode_rows
    from synfer_ray.training.ratings import read_rated

    table = read_rated(config.rated, config.ratings, ["image"])
    columns = table.column_names
    build = partial(build_wholeness, config.bundle, config.wholeness_base, "readings" in columns)
    build()  # a wrong base shows here
    said = fingerprint(table.drop_columns("image").to_pylist())
    rows = ray.data.from_arrow(table).map_batches(partial(decode_rows, columns=columns))
    _train(config, "wholeness", build, rows, config.wholeness, [WHOLENESS], run=f"wholeness-{said}")


def train_preference(config: TrainingConfig) -> None:
    """Teaches `unet/` which of its draws are better, by `wholeness/` and the experts.

    Its samples then need new ratings, and FERAnno reads features that have moved.

    Raises:
        InputError: `preference_draws` or `preference_stride` is no positive number, or the bundle has no
            `wholeness/`.
    """
    if not 0 < config.preference_stride < math.inf:
        raise InputError(f"preference_stride={config.preference_stride} is no positive number")
    if config.preference_draws < 1:
        raise InputError(f"preference_draws={config.preference_draws}: the model learns from its own draws")
    if not (Path(config.bundle) / WHOLENESS).is_dir():
        raise InputError(f"{config.bundle} has no {WHOLENESS}/, which tells better draws: train it first")
    from synfer_ray.training.drawn import preferred_pairs

    build = partial(build_preference, config.bundle, config.preference_stride)
    before = fingerprint_folder(Path(config.bundle) / "unet")  # another U-Net learns from its own draws anew
    pairs = preferred_pairs(config)
    _train(config, "preference", build, pairs, config.preference, ["unet"], run=f"preference-{before}")


def _train(
    config: TrainingConfig,
    name: str,
    build: Callable[[], Objective],
    rows: "ray.data.Dataset",
    fit: FitConfig,
    places: Sequence[str],
    run: str | None = None,
) -> None:
    """Trains a part, puts it in its places in the bundle, and records how it was trained.

    It is written beside its place and moved there, so that a part in place is a whole part. An objective
    with several places exports a folder of them.
    """
    from synfer_ray.training.ray_trainer import train

    objective, metrics = train(run or name, build, rows, fit, config.workers, config.runs)
    objective.adopt(metrics)
    bundle = Path(config.bundle)
    exported = bundle / f"{name}.partial"
    objective.export(exported)
    for place in places:
        target = bundle / place
        shutil.rmtree(target, ignore_errors=True)
        target.parent.mkdir(exist_ok=True)
        (exported / place if len(places) > 1 else exported).rename(target)
    shutil.rmtree(exported, ignore_errors=True)

    record = bundle / "training.json"
    trained = json.loads(record.read_text()) if record.exists() else {}
    trained[name] = {"settings": asdict(fit), "metrics": metrics}
    record.write_text(json.dumps(trained, indent=2) + "\n")


def _latents(config: TrainingConfig, columns: list[str]) -> "ray.data.Dataset":
    """Latents of all faces and their mirror images, with what they show."""
    from synfer_ray.training.latents import LatentEncoder

    return _encoded(config, LatentEncoder, ["image", "caption", "action_units", "label_probs"], columns)


def _repeated(config: TrainingConfig, columns: list[str]) -> "ray.data.Dataset":
    """`_latents`, those of rare expressions several times, unclear ones without captions."""
    if config.rare_repeats < 1:
        raise InputError(f"rare_repeats={config.rare_repeats}: every face is shown once at least")
    if not 0 <= config.clear_share <= 1:
        raise InputError(f"clear_share={config.clear_share} is not in [0, 1]")
    from transformers import CLIPTokenizer

    rows = _latents(config, [*columns, "label_probs"])
    share, most, power = _class_share(config), config.rare_repeats, config.rare_power
    empty = empty_ids(CLIPTokenizer.from_pretrained(Path(config.bundle) / "tokenizer")).numpy()
    return rows.map_batches(
        partial(silence_unclear, clear_share=config.clear_share, empty_ids=empty)
    ).map_batches(partial(repeat_rare, share=share, most=most, power=power, clear_share=config.clear_share))


def _views(config: TrainingConfig, columns: list[str]) -> "ray.data.Dataset":
    """Latents of all faces, each as it is and in random views."""
    from synfer_ray.training.latents import ViewEncoder

    return _encoded(config, ViewEncoder, ["image", "label_probs"], columns, views=config.feranno_views)


def _encoded(
    config: TrainingConfig, encoder: type, needed: list[str], columns: list[str], **settings: int
) -> "ray.data.Dataset":
    """What the encoder makes of the faces' columns, made once and kept under `runs`."""
    import ray.data

    from synfer_ray.training.data import read_faces

    faces = sorted((file.name, file.stat().st_size) for file in (Path(config.input) / "data").iterdir())
    encoders = [fingerprint_folder(Path(config.bundle) / part) for part in ("vae", "tokenizer")]
    size = training_image_size(config)
    folder = Path(config.runs) / f"latents-{fingerprint([faces, encoders, size, *settings.values()])}"
    if not folder.exists():
        encoded = read_faces(config.input, needed).map_batches(
            encoder,
            fn_constructor_kwargs={"bundle": config.bundle, "image_size": size, **settings},
            batch_size=64,
            num_cpus=config.workers.num_cpus,
            num_gpus=1 if config.workers.use_gpu else 0,
            compute=ray.data.ActorPoolStrategy(size=config.workers.num_workers),
        )
        partial_folder = folder.with_name(f"{folder.name}.partial")
        encoded.write_parquet(str(partial_folder), mode=ray.data.SaveMode.OVERWRITE)
        partial_folder.rename(folder)
    return ray.data.read_parquet(str(folder), columns=["sample_id", *columns])


def _class_share(config: TrainingConfig) -> np.ndarray:
    """The share of each expression among the faces' labels."""
    share = np.mean(label_distributions(read_columns(config.input, ["label", "label_probs"])), axis=0)
    return share / share.sum()


def _labelled_action_units(config: TrainingConfig) -> list[str]:
    """The action units that at least one FEText row knows."""
    intensities = np.array(
        read_columns(config.input, ["action_units"])["action_units"].to_pylist(), np.float32
    )
    known = np.flatnonzero(~np.isnan(intensities).all(axis=0))
    return [ACTION_UNITS[place] for place in known]
