import io
import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image

from synfer_ray.config import ArchitectureConfig, ExpertRecipe, FitConfig, TrainingConfig
from synfer_ray.storage.schema import fetext_schema
from synfer_ray.taxonomy.action_units import ACTION_UNITS

FIT = FitConfig(
    steps=6,
    batch_size=4,
    report_every=6,
    checkpoint_every=6,
    validation_rows=4,
    warmup_steps=1,
    learning_rate=1e-3,
)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def snapshot(module: torch.nn.Module) -> torch.Tensor:
    return torch.cat([value.detach().float().flatten().clone() for value in module.state_dict().values()])


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_fetext(folder, rows: int = 48) -> str:
    rng = np.random.default_rng(0)
    known = np.array([name in ("AU01", "AU12", "AUL12", "AUR12") for name in ACTION_UNITS])
    records = []
    for index in range(rows):
        pixels = np.full((32, 32, 3), 40 + 20 * (index % 7), np.uint8)
        pixels[8:24, 8 + index % 8 : 16 + index % 8] = rng.integers(150, 255)
        records.append(
            {
                "sample_id": f"face-{index:04d}",
                "image": {"bytes": png(pixels), "path": None},
                "caption": f"a photo of a happy face turned {'left' if index % 2 else 'right'}",
                "action_units": np.where(known, rng.random(len(ACTION_UNITS)), np.nan)
                .astype(np.float32)
                .tolist(),
                "label": index % 7,
                "label_probs": None if index % 3 else np.full(7, 1 / 7, np.float32).tolist(),
                "attributes": json.dumps({}),
                "source": "test",
                "license": "CC0",
            }
        )
    (folder / "data").mkdir(parents=True)
    pq.write_table(pa.Table.from_pylist(records, schema=fetext_schema()), folder / "data" / "train-0.parquet")
    return str(folder)


def tiny_training(fetext: str, folder, **changes) -> TrainingConfig:
    fit = FitConfig(
        steps=4, batch_size=8, report_every=2, checkpoint_every=2, validation_rows=8, warmup_steps=1
    )
    architecture = ArchitectureConfig(
        image_size=32,
        latent_channels=4,
        vae_channels=[8, 8],
        unet_channels=[16, 16, 32, 32],
        weak_channels=[8, 8],
        attention_heads=2,
        text_width=16,
        text_layers=1,
        text_length=24,
    )
    settings = {
        "input": fetext,
        "bundle": str(folder / "bundle"),
        "runs": str(folder / "runs"),
        "architecture": architecture,
        "experts": {"guide": ExpertRecipe("plain", fit)},
        "decoder_draws": 32,
        **{
            part: fit
            for part in (
                "autoencoder",
                "decoder",
                "diffusion",
                "au_adapter",
                "joint",
                "preview",
                "weak_unet",
                "au_labeler",
                "feranno",
            )
        },
    }
    return TrainingConfig(**{**settings, **changes})
