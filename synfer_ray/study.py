"""What each part of the method adds: the same plan made by several variants, judged alike (paper 5.3)."""

import json
import re
from typing import Any

from synfer_ray.config import GenerateConfig, StudyConfig
from synfer_ray.errors import InputError
from synfer_ray.evaluate import evaluate
from synfer_ray.pipeline import generate
from synfer_ray.reporting.study import comparison_sheet, markdown
from synfer_ray.reporting.summary import throughput
from synfer_ray.settings import merge_config
from synfer_ray.storage.locations import filesystem, join, write_bytes
from synfer_ray.storage.shards import read_commits

UNFILTERED = {
    "min_wholeness": 0.0,
    "min_readability": 0.0,
    "vote": {"on_mismatch": "keep_soft", "min_confidence": 0.0},
}
"""The judge sees what the generator made, not what the voters let pass."""


def study(config: StudyConfig) -> None:
    """Generates and evaluates every variant, then writes `study.json`, `study.md` and `study.png`.

    What is generated already is not made again.

    Raises:
        InputError: no variants, or wrong settings of one.
    """
    if not config.variants:
        raise InputError("variants is empty; name at least one, as configs/ablation.yaml does")
    outputs, figures = {}, {}
    for name, changes in config.variants.items():
        outputs[name] = join(config.output, re.sub(r"\W+", "-", name).strip("-"))
        frame = {"output": outputs[name], "num_images": config.num_images, "seed": config.seed}
        generate(merge_config(GenerateConfig, UNFILTERED, config.generate, changes or {}, frame))
        figures[name] = judge(config, outputs[name])
    table = markdown(figures)
    fs, root = filesystem(config.output)
    write_bytes(fs, f"{root}/study.json", (json.dumps(figures, indent=2) + "\n").encode())
    write_bytes(fs, f"{root}/study.md", table.encode())
    write_bytes(fs, f"{root}/study.png", comparison_sheet(outputs))
    print(table)


def judge(config: StudyConfig, dataset: str) -> dict[str, Any]:
    """The figures of `evaluate` for one variant, and how fast it was made."""
    figures = evaluate(merge_config(type(config.evaluate), config.evaluate, {"input": dataset}))
    pace = throughput(read_commits(dataset))
    return figures | ({"images_per_second": pace.rows_per_second} if pace else {})
