"""Plan rows in, images and FERAnno's opinion of them out: one model in memory for both (paper 4.2-4.4)."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor

from synfer_ray.calibration.experts import NETWORKS, load_network
from synfer_ray.calibration.feranno import load_annotator
from synfer_ray.calibration.wholeness import WholenessNet
from synfer_ray.config import GenerateConfig
from synfer_ray.diffusion.components import (
    Components,
    decode_latents,
    encode_prompt,
    load_components,
    word_mask,
)
from synfer_ray.diffusion.editing import LocalEdit
from synfer_ray.diffusion.guidance import SemanticGuidance
from synfer_ray.diffusion.layout import ddim_invert, partial_noise
from synfer_ray.diffusion.memory import apply_levers
from synfer_ray.diffusion.noise import next_noise, row_generator
from synfer_ray.diffusion.preview import load_preview
from synfer_ray.diffusion.sampling import Samples, denoise
from synfer_ray.errors import InputError
from synfer_ray.prompts import NEUTRAL_PROMPT
from synfer_ray.stages.attempts import Attempts
from synfer_ray.stages.attention_overlay import attention_of, write_overlay
from synfer_ray.stages.layout_pool import open_layouts
from synfer_ray.stages.model_stage import model_stage
from synfer_ray.stages.sample_rows import GENERATE, Row, rejection, sample_rows, timed
from synfer_ray.storage.bundle import (
    FERANNO,
    PREVIEW,
    WHOLENESS,
    bundle_image_size,
    expert_spec,
    find_bundle,
)
from synfer_ray.storage.schema import VOTER
from synfer_ray.storage.weights import load_model
from synfer_ray.taxonomy.compounds import components_of
from synfer_ray.taxonomy.expressions import EXPRESSIONS

ENCODINGS: dict[str, dict[str, Any]] = {
    "png": {"compress_level": 6},
    "jpeg": {"quality": 95, "subsampling": 0},
    "webp": {"lossless": True, "method": 0},
}
FLAT = 2.0
"""Standard deviation in grey levels (0..255) below which an image shows nothing."""


@model_stage
class ImageGenerator:
    """A Ray actor: loads the models once, then generates, annotates, checks and encodes shard after shard.

    Every forward pass has `batch_size` rows and a fixed number of threads, and a row always has the same
    place in its batch: its bytes depend on its plan alone.

    Raises:
        InputError: a model is missing, damaged or does not fit the others.
    """

    def __init__(self, config: GenerateConfig):
        torch.set_num_threads(config.num_threads)
        bundle = find_bundle(config.bundle)
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.config = config
        self.attempts = Attempts(config.output, GENERATE)
        self.image_size = config.image_size or bundle_image_size(bundle)
        self.components = load_components(bundle, device, getattr(torch, config.dtype))
        apply_levers(self.components, config.memory)
        if self.components.adapter:
            self.components.adapter.scale = config.au_scale
        self.annotator = load_annotator(self.components) if FERANNO in config.voters else None
        self.guidance = load_guidance(config, bundle, self.components)
        self.wholeness = None
        if config.min_wholeness or config.min_readability:
            self.wholeness = load_model(WholenessNet, bundle / WHOLENESS).to(device).requires_grad_(False)
        self.layouts = open_layouts(config.layout, bundle)
        self.empty_embeds = encode_prompt(
            self.components, [config.sampling.negative_prompt] * config.batch_size
        )
        self.neutral_embeds = encode_prompt(self.components, [NEUTRAL_PROMPT] * config.batch_size)

    def __call__(self, table: pa.Table) -> pa.Table:
        """Generates the images of one shard."""
        rows = table.to_pylist()
        with timed(rows, GENERATE):
            for group, batch in self.attempts.batches(rows, self.config.batch_size):
                self.generate(group, batch)
        return sample_rows(rows, self.config.voters)

    def generate(self, rows: list[Row], batch: list[Row], edit: LocalEdit | None = None) -> None:
        """Fills in what comes of a batch's rows: image, FERAnno's vote, a viewer's, or the reject."""
        samples = self.sample(batch, edit)
        annotation = self.annotator.from_latents(samples.latents) if self.annotator else None
        with torch.inference_mode():
            images = decode_latents(self.components, samples.latents).float()
            impressions = self.look(images.clamp(-1, 1), batch)
        images = images.cpu()
        for row in rows:
            place = row["index"] % len(batch)
            row["guidance_skipped"] = int(samples.guidance_skipped[place])
            if annotation:
                row[f"{VOTER}{FERANNO}"] = annotation.probs[place].tolist()
            row |= self.finish(images[place], row)
            row |= impressions[place]
            if row["reason"] is None:
                row |= self.dismissal(row)
            if annotation and row["index"] < self.config.overlays and row["reason"] is None:
                write_overlay(self.config.output, row, attention_of(annotation, place))

    def sample(self, rows: list[Row], edit: LocalEdit | None = None) -> Samples:
        """Draws the latents of a whole batch of planned rows, which may differ only in one place."""
        prompts = [row["prompt"] for row in rows]
        generators = [row_generator(row["seed"]) for row in rows]
        latents, start_step = self.start(rows, generators)
        return denoise(
            self.components,
            self.config.sampling,
            latents,
            start_step,
            generators=generators,
            prompt_embeds=encode_prompt(self.components, prompts),
            empty_embeds=self.empty_embeds,
            au_tokens=self.au_tokens(rows),
            guidance=self.guidance,
            targets=expression_targets(rows).to(self.components.device) if self.guidance else None,
            token_mask=word_mask(self.components, prompts) if self.config.guidance.words_only else None,
            edit=edit,
        )

    def look(self, images: Tensor, rows: list[Row]) -> list[Row]:
        """What viewers would say of the images [B, 3, H, W] of a batch, as far as the bundle can tell."""
        if self.wholeness is None:
            return [{} for _ in rows]
        wholeness, readings = self.wholeness(images)
        impressions: list[Row] = [{"wholeness": value} for value in wholeness.tolist()]
        if readings is not None:
            wanted = expression_targets(rows).to(readings) > 0
            for row, value in zip(impressions, (readings[:, :-1] * wanted).sum(1).tolist()):
                row["readability"] = value
        return impressions

    def dismissal(self, row: Row) -> Row:
        """The columns of a reject, if the face is not whole or does not show clearly what was asked for."""
        whole, readable = row.get("wholeness"), row.get("readability")
        if whole is not None and whole < self.config.min_wholeness:
            return rejection(GENERATE, "broken", f"wholeness {whole:.2f}")
        if readable is not None and readable < self.config.min_readability:
            return rejection(GENERATE, "unclear", f"readability {readable:.2f}")
        return {}

    def start(self, rows: list[Row], generators: list[torch.Generator]) -> tuple[Tensor, int]:
        """Returns the start latents and the first step to take: noise, or the layout of a face (4.3).

        The noise is the first that the rows' generators give.
        """
        components, layout = self.components, self.config.layout
        steps = self.config.sampling.num_inference_steps
        noise = next_noise(generators, components.latent_shape(self.image_size))
        noise = noise.to(components.device, components.dtype)
        if self.layouts is None:
            return noise, 0
        numbers = [int(row["layout_source"].rsplit("-", 1)[1]) for row in rows]
        faces = self.layouts.latents(numbers, components, self.image_size)
        if layout.mode == "partial_noise":
            return partial_noise(faces, layout.strength, noise, components.scheduler, steps)
        return ddim_invert(components, faces, self.neutral_embeds, layout.strength, steps)

    def au_tokens(self, rows: list[Row]) -> Tensor | None:
        """Returns the adapter's tokens for the planned action units [B, N, D]; None if nothing reads them."""
        if self.components.adapter is None or not self.components.adapter.scale:
            return None
        action_units = torch.tensor([row["action_units"] for row in rows], device=self.components.device)
        with torch.inference_mode():
            return self.components.adapter.encode(action_units)

    def finish(self, image: Tensor, row: Row) -> Row:
        """Encodes an image [3, H, W] in [-1, 1]; black, flat and non-finite ones are rejected."""
        if not image.isfinite().all():
            return rejection(GENERATE, "not_finite", f"{int((~image.isfinite()).sum())} values")
        pixels = ((image.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
        encoding = self.config.image_format
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, encoding, **ENCODINGS[encoding])
        file = {"bytes": buffer.getvalue(), "path": f"{row['sample_id']}.{encoding}"}
        if pixels.std() < FLAT:
            reason = "black" if pixels.mean() < FLAT else "flat"
            return {"image": file} | rejection(GENERATE, reason, f"mean {pixels.mean():.1f} of 255")
        return {"image": file}


def load_guidance(config: GenerateConfig, bundle: Path, components: Components) -> SemanticGuidance | None:
    """Loads the classifier behind semantic guidance; None without one.

    Raises:
        InputError: the guide is not a classifier that can be differentiated.
    """
    settings = config.guidance
    if settings.guide is None:
        return None
    spec = expert_spec(settings.guide, bundle, config.experts)
    if spec.kind not in NETWORKS:
        raise InputError(
            f"guide {settings.guide!r} is of kind {spec.kind}: only {', '.join(NETWORKS)} have gradients"
        )
    guide = load_network(spec).to(components.device).requires_grad_(False)
    preview = bundle / PREVIEW
    decode = load_preview(preview, components) if settings.preview and preview.is_dir() else None
    return SemanticGuidance(guide, settings.step_size, settings.norm, settings.start, decode)


def expression_targets(rows: Sequence[Row]) -> Tensor:
    """Returns what guidance aims at [B, 7]: the expression, or half of each part of a compound one."""
    targets = torch.zeros(len(rows), len(EXPRESSIONS))
    for place, row in enumerate(rows):
        parts = components_of(row["compound"] or EXPRESSIONS[row["assigned_label"]])
        targets[place, [EXPRESSIONS.index(part) for part in parts]] = 1 / len(parts)
    return targets
