"""What the generator's parts cost: batching (P2), guidance (P3), FERAnno (P5) and encoding (P11)."""

import gc
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

import torch

from synfer_ray.benchmarks.cost import Cost, interleave
from synfer_ray.diffusion.components import decode_latents, encode_prompt, word_mask
from synfer_ray.diffusion.noise import row_generator
from synfer_ray.diffusion.sampling import denoise
from synfer_ray.plan import Plan, plan_row
from synfer_ray.stages.image_generator import ImageGenerator, expression_targets
from synfer_ray.stages.sample_rows import Row


def measure_functions(plan: Plan, repetitions: int) -> dict[str, list[Cost]]:
    """Returns one ratio a repetition for each of P2, P3, P5 and P11, on one device batch in this process."""
    ratios: dict[str, list[Cost]] = {"P2": [], "P3": [], "P5": [], "P11": []}
    for turn in time_stages(plan, repetitions):
        generate = turn["denoise"] + turn["decode"]
        one_by_one = (turn["denoise_one"] + turn["decode_one"]) * plan.config.batch_size
        ratios["P2"].append(one_by_one / generate)
        ratios["P3"].append(turn["denoise_guided"] / turn["denoise"])
        ratios["P5"].append((generate + turn["annotate"]) / generate)
        ratios["P11"].append(turn["encode"] / generate)
    return ratios


def time_stages(plan: Plan, repetitions: int, names: Sequence[str] | None = None) -> list[dict[str, Cost]]:
    """Returns what each step of the generator, or those named, cost in each repetition.

    All but `denoise_one` and `decode_one` take a batch.
    """
    torch.compiler.reset()  # a process compiles a function eight times, and then runs it uncompiled
    gc.collect()
    torch.cuda.empty_cache()
    config = plan.config
    rows = [asdict(plan_row(plan, index)) for index in range(config.batch_size)]
    generator = ImageGenerator(config)
    single = ImageGenerator(replace(config, batch_size=1))
    latents = denoise_rows(generator, rows)
    images = decode(generator, latents)
    works: dict[str, Callable[[], object]] = {
        "denoise": lambda: denoise_rows(generator, rows),
        "denoise_guided": lambda: denoise_rows(generator, rows, guided=True),
        "denoise_one": lambda: denoise_rows(single, rows[:1]),
        "decode": lambda: decode(generator, latents),
        "decode_one": lambda: decode(single, latents[:1]),
        "encode": lambda: [generator.finish(image, row) for image, row in zip(images, rows)],
    }
    if annotator := generator.annotator:
        works["annotate"] = lambda: annotator.from_latents(latents)
    wanted = {name: work for name, work in works.items() if names is None or name in names}
    return interleave(wanted, repetitions)


def denoise_rows(generator: ImageGenerator, rows: list[Row], guided: bool = False) -> torch.Tensor:
    """Samples the latents [B, C, h, w] of planned rows, as the actor does."""
    components = generator.components
    prompts = [row["prompt"] for row in rows]
    generators = [row_generator(row["seed"]) for row in rows]
    latents, start_step = generator.start(rows, generators)
    return denoise(
        components,
        generator.config.sampling,
        latents,
        start_step,
        generators=generators,
        prompt_embeds=encode_prompt(components, prompts),
        empty_embeds=generator.empty_embeds,
        au_tokens=generator.au_tokens(rows),
        guidance=generator.guidance if guided else None,
        targets=expression_targets(rows).to(components.device),
        token_mask=word_mask(components, prompts),
    ).latents


def decode(generator: ImageGenerator, latents: torch.Tensor) -> torch.Tensor:
    """Decodes latents into images [B, 3, H, W] on the CPU."""
    with torch.inference_mode():
        return decode_latents(generator.components, latents).float().cpu()
