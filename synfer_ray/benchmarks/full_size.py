"""Stable Diffusion 1.5 at full size: operations counted anywhere, and what a GPU makes of them (H1 to H6)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from synfer_ray.benchmarks.cost import Cost, interleave
from synfer_ray.benchmarks.engine import measure_engine
from synfer_ray.benchmarks.functions import time_stages
from synfer_ray.benchmarks.random_model import random_components, write_random_bundle
from synfer_ray.calibration.features import extract_features
from synfer_ray.calibration.feranno import FERAnno
from synfer_ray.config import (
    DTYPES,
    FullSizeConfig,
    GenerateConfig,
    GuidanceConfig,
    MemoryConfig,
    PoolConfig,
    SamplingConfig,
)
from synfer_ray.diffusion.components import as_pipeline, decode_latents, load_components
from synfer_ray.diffusion.guidance import guided_steps
from synfer_ray.diffusion.memory import apply_levers
from synfer_ray.errors import InputError, choose
from synfer_ray.pipeline import make_plan
from synfer_ray.plan import Plan, plan_row
from synfer_ray.storage.bundle import FERANNO, find_bundle

LEVERS = {
    "channels_last": MemoryConfig(channels_last=True),
    "compile": MemoryConfig(compile=True),
    "channels_last and compile": MemoryConfig(channels_last=True, compile=True),
    "vae_slicing": MemoryConfig(vae_slicing=True),
}
GAINS = ("bfloat16", *LEVERS, "preview", "gradient_checkpointing")
"""What is measured alone, against bfloat16 without any lever; the last two on guided denoising."""


def count_image(config: FullSizeConfig) -> dict[str, list[float]]:
    """Counts the operations of one image, with classifier-free guidance and the AU adapter.

    Raises:
        InputError: there are not two image sizes, or the number type is unknown.
    """
    if len(config.image_sizes) != 2:
        raise InputError(f"full_size.image_sizes are {config.image_sizes}; two are compared, as in [512,256]")
    choose(config.dtype, DTYPES, "full_size.dtype")
    large, small = (stage_flops(size) for size in config.image_sizes)
    predictions = 1 if config.guidance_scale == 1 else 2
    passes = predictions * config.num_inference_steps
    image = passes * large["unet"] + large["decode"]
    share = len(guided_steps(config.guidance_start, config.num_inference_steps)) / config.num_inference_steps

    def guided(pass_and_back: int) -> float:
        return 1 + share * (pass_and_back - large["unet"]) / (predictions * large["unet"])

    return {
        "H1 TFLOP": [image / 1e12],
        "H2 TFLOP": [(passes * small["unet"] + small["decode"]) / 1e12],
        "H4 FLOP": [guided(large["guided through preview"])],
        "H4 FLOP decoder": [guided(large["guided"])],
        "H5 FLOP": [large["decode"] / image],
        "H6 FLOP": [1 + large["feranno"] / image],
        "H6 FLOP apart": [1 + (large["encode"] + large["feranno"]) / image],
    }


def stage_flops(image_size: int) -> dict[str, int]:
    """Returns the floating-point operations of one image at each stage, on the meta device.

    `unet` is one pass; `guided` is one with the decoder and the way back to the text embedding, without the
    classifier; `feranno` is FERAnno's pass and its head.
    """
    from diffusers import AutoencoderTiny

    with torch.device("meta"):
        components = random_components(torch.float32)
        latents = torch.empty(1, *components.latent_shape(image_size))
        images = torch.empty(1, 3, image_size, image_size)
        text = torch.empty(1, 77, components.text_encoder.config.hidden_size)
        context = components.context(text)
        head = FERAnno.for_features(extract_features(components.unet, latents, 1, context)).eval()

        tiny = AutoencoderTiny().requires_grad_(False)

        def guided(look: Callable[[torch.Tensor], torch.Tensor]) -> None:
            embeds = text.clone().requires_grad_()
            with torch.enable_grad():
                x0_hat = components.unet(latents, 1, components.context(embeds)).sample
                torch.autograd.grad(look(x0_hat).sum(), embeds)

        works: dict[str, Callable[[], object]] = {
            "unet": lambda: components.unet(latents, 1, context),
            "decode": lambda: decode_latents(components, latents),
            "encode": lambda: components.vae.encode(images),
            "feranno": lambda: head(extract_features(components.unet, latents, 1, context)),
            "guided": lambda: guided(partial(decode_latents, components)),
            "guided through preview": lambda: guided(lambda x0_hat: tiny.decode(x0_hat).sample),
        }
        return {name: count_flops(work) for name, work in works.items()}


def count_flops(work: Callable[[], object]) -> int:
    """Returns the floating-point operations of the work's matrix products and convolutions."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        work()
    return counter.get_total_flops()


def measure_gpu(config: FullSizeConfig, output: str, repetitions: int) -> dict[str, list[Any]]:
    """Measures H1 to H6 and what each lever gains, on the GPU if there is one."""
    counted = count_image(config)  # which reads the settings
    bundle = config.bundle or str(write_random_bundle(Path(output) / "random_model", config.image_sizes[0]))
    plan = make_plan(job(config, bundle), find_bundle(bundle))
    large = changed(plan, memory=config.memory)
    small = changed(large, image_size=config.image_sizes[1], voters=["residual"])
    turns, small_turns = time_stages(large, repetitions), time_stages(small, repetitions)
    measured: dict[str, list[Any]] = dict(counted)
    for name, of in (("H1", turns), ("H2", small_turns)):
        (tflop,) = counted[f"{name} TFLOP"]
        measured[name] = [config.batch_size / total(turn).wall for turn in of]
        measured[f"{name} MFU"] = [rate * tflop / config.peak_tflops for rate in measured[name]]
    plain = interleave({"plain": plain_pipeline(large)}, repetitions)
    made = [turn["denoise"] + turn["decode"] for turn in turns]
    measured["H1 plain"] = [turn["plain"] / ours for turn, ours in zip(plain, made)]
    measured["H3"] = measure_engine(large, config.shards, repetitions)["P1"]
    measured["H4"] = [turn["denoise_guided"] / turn["denoise"] for turn in turns]
    measured["H5"] = [(turn["decode"] + turn["encode"]) / total(turn) for turn in turns]
    measured["H6"] = [(ours + turn["annotate"]) / ours for turn, ours in zip(turns, made)]
    return measured | measure_levers(plan, repetitions)


GENERATION = ("denoise", "decode", "encode")
"""The steps to a batch of finished images, unguided and without FERAnno."""


def measure_levers(plan: Plan, repetitions: int) -> dict[str, list[Cost]]:
    """Returns by which factor each lever shortens the generation; below 1 it does not pay."""
    unseen = replace(plan.config.guidance, preview=False)
    none = changed(plan, memory=MemoryConfig(), guidance=unseen)
    before = time_stages(none, repetitions, (*GENERATION, "denoise_guided"))

    def gain(names: Sequence[str] = GENERATION, **lever: Any) -> list[Cost]:
        after = time_stages(changed(none, **lever), repetitions, names)
        return [total(old, names) / total(new, names) for old, new in zip(before, after)]

    unit = Cost(1.0, 1.0)
    guided = ("denoise_guided",)
    gains = {"bfloat16": [unit / slower for slower in gain(dtype="float32")]}
    gains |= {name: gain(memory=memory) for name, memory in LEVERS.items()}
    gains["preview"] = gain(guided, guidance=plan.config.guidance)
    gains["gradient_checkpointing"] = gain(guided, memory=MemoryConfig(gradient_checkpointing=True))
    return {f"gain {name}": gains[name] for name in GAINS}


def total(turn: Mapping[str, Cost], names: Sequence[str] = GENERATION) -> Cost:
    """Returns what these steps cost together."""
    first, *others = (turn[name] for name in names)
    return sum(others, first)


def job(config: FullSizeConfig, bundle: str) -> GenerateConfig:
    """Returns the settings of a job with one generator on one GPU."""
    return GenerateConfig(
        output="",
        bundle=bundle,
        image_size=config.image_sizes[0],
        image_format="jpeg",
        sampling=SamplingConfig(
            num_inference_steps=config.num_inference_steps,
            eta=0.0,
            guidance_scale=config.guidance_scale,
            au_guidance_scale=None,
        ),
        guidance=GuidanceConfig(start=config.guidance_start),
        voters=[FERANNO, "residual"],
        batch_size=config.batch_size,
        shard_rows=config.batch_size,
        dtype=config.dtype,
        generator_pool=PoolConfig(min_actors=1, max_actors=1, num_gpus=float(torch.cuda.is_available())),
        overlays=0,
    )


def changed(plan: Plan, **settings: Any) -> Plan:
    """Returns the plan with other settings and the same models."""
    return replace(plan, config=replace(plan.config, **settings))


def plain_pipeline(plan: Plan) -> Callable[[], object]:
    """Returns diffusers' own pipeline for a batch of prompts of the plan, with the same levers."""
    from diffusers.models.attention_processor import AttnProcessor2_0

    config = plan.config
    torch.compiler.reset()  # as in `time_stages`
    device = "cuda" if torch.cuda.is_available() else "cpu"
    parts = load_components(find_bundle(config.bundle), device, getattr(torch, config.dtype))
    parts.unet.set_attn_processor(AttnProcessor2_0())
    apply_levers(parts, config.memory)
    pipeline = as_pipeline(parts)
    pipeline.set_progress_bar_config(disable=True)
    return lambda: pipeline(
        [plan_row(plan, index).prompt for index in range(config.batch_size)],
        height=config.image_size,
        width=config.image_size,
        num_inference_steps=config.sampling.num_inference_steps,
        guidance_scale=config.sampling.guidance_scale,
        output_type="pt",
    )
