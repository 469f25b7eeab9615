"""The bundle's README: what it holds, what it learnt from, how well, and what it may be used for."""

import json
from pathlib import Path

from synfer_ray.config import TrainingConfig
from synfer_ray.storage.bundle import bundle_image_size
from synfer_ray.training.data import read_columns, training_image_size

TEMPLATE = """\
---
library_name: diffusers
pipeline_tag: text-to-image
license: other
tags: [facial-expression, action-units, synthetic-data, synfer]
---
# {name}

A text-to-face model for synthetic facial-expression data, in the plain diffusers layout
(`StableDiffusionPipeline.from_pretrained` loads it), with the parts synfer-ray adds: `au_adapter/`,
`preview/`, `feranno/`, `experts/`, `au_labeler/`, `layouts/` (latents of synthetic faces to start from),
`au_prior/` (action units to ask for with each expression, as numbers alone), where one was trained
`weak_unet/` (a worse denoiser that the sampler steers away from) and, where samples were rated, `wholeness/`
(which faces are whole and, if told, what viewers read in them).

- Images: {size} x {size}; latents {channels} x {latent} x {latent}.
- `unet/` has {parameters:.1f} million parameters.
- {origin} {rows} faces of: {sources}. Licence of the data: {licenses}.
- Use: research. The faces it learnt from are real people's; do not use it to imitate anyone.
- Action units it was shown: {action_units}. All others count as unknown.

| part | training samples | figures on held-out rows |
|---|---|---|
{table}
"""


def write_model_card(config: TrainingConfig) -> None:
    """Writes `README.md` into the bundle from `training.json` and the FEText folder."""
    bundle = Path(config.bundle)
    unet = json.loads((bundle / "unet" / "config.json").read_text())
    adapter = json.loads((bundle / "au_adapter" / "config.json").read_text())
    weights = (bundle / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size
    facts = read_columns(config.input, ["source", "license"])
    trained = json.loads((bundle / "training.json").read_text())
    (bundle / "README.md").write_text(
        TEMPLATE.format(
            name=bundle.name,
            size=training_image_size(config),
            channels=unet["in_channels"],
            latent=training_image_size(config) * unet["sample_size"] // bundle_image_size(bundle),
            origin=f"Fine-tuned from {config.base}, whose licence and restrictions of use apply, on"
            if config.base
            else "Trained on",
            parameters=weights / 2e6,
            rows=facts.num_rows,
            sources=", ".join(sorted(set(facts["source"].to_pylist()))),
            licenses=", ".join(sorted(set(facts["license"].to_pylist()))),
            action_units=", ".join(adapter["supported"]),
            table="\n".join(_row(name, entry) for name, entry in trained.items()),
        )
    )


def _row(name: str, entry: dict) -> str:
    fit, metrics = entry["settings"], entry["metrics"]
    samples = metrics["step"] * fit["batch_size"]
    figures = ", ".join(
        f"{key.removeprefix('validation_')} {value:.4g}"
        for key, value in metrics.items()
        if key.startswith("validation_")
    )
    return f"| {name} | {samples:,} | {figures} |"
