"""The published size of Stable Diffusion 1.5 with random weights, on the CPU at a few pixels."""

import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

import psutil
import pyarrow.parquet as pq
import pytest
import torch

from synfer_ray.benchmarks.meter import Meter
from synfer_ray.benchmarks.random_model import VAE, write_random_bundle
from synfer_ray.calibration.feranno import load_annotator
from synfer_ray.calibration.vote import check_roles
from synfer_ray.config import CalibrateConfig, GenerateConfig, SamplingConfig, TrainingConfig
from synfer_ray.diffusion.components import decode_latents, encode_prompt, load_components, word_mask
from synfer_ray.diffusion.guidance import SemanticGuidance
from synfer_ray.diffusion.noise import initial_noise
from synfer_ray.diffusion.sampling import denoise
from synfer_ray.pipeline import generate
from synfer_ray.settings import load_config
from synfer_ray.storage.bundle import FERANNO
from synfer_ray.storage.manifest import read_manifest
from synfer_ray.storage.shards import read_commits
from synfer_ray.storage.verify import verify

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
SIZE = 128


def test_the_documented_settings_fit_together():
    job = load_config(GenerateConfig, str(CONFIGS / "sd15.yaml"), ["output=x"])
    published = load_config(CalibrateConfig, str(CONFIGS / "experts.yaml"), ["input=x", "output=y"]).experts
    check_roles(job.guidance.guide, job.voters, None)
    assert {*job.voters, job.guidance.guide} == {*job.experts, FERANNO}
    assert all(
        replace(expert, crop="") == replace(published[name], crop="") for name, expert in job.experts.items()
    )
    training = load_config(TrainingConfig, str(CONFIGS / "train_sd15.yaml"), ["input=x"])
    assert training.diffusion.gradient_checkpointing and training.image_size == VAE["sample_size"]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    return write_random_bundle(tmp_path_factory.mktemp("full") / "sd15", SIZE)


@pytest.fixture
def seconds() -> Iterator[dict[str, float]]:
    """Seconds by stage; printed with the most memory that this process took so far (`pytest -s`)."""
    spent: dict[str, float] = defaultdict(float)
    yield spent
    stages = ", ".join(f"{name} {value:.1f} s" for name, value in spent.items())
    print(f"\n{stages}; {getrusage(RUSAGE_SELF).ru_maxrss >> 10} MiB at most")


class Resident(Meter):
    """The most MiB that one process of Ray held in memory, files that it maps included."""

    def __init__(self) -> None:
        super().__init__(interval=0.5)
        self.peaks: dict[str, int] = defaultdict(int)

    def sample(self) -> None:
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                name = "".join(process.cmdline()[:1]) or process.name()
                self.peaks[name] = max(self.peaks[name], process.memory_info().rss >> 20)


@contextmanager
def timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    started = time.perf_counter()
    yield
    seconds[stage] += time.perf_counter() - started


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_two_guided_steps_and_feranno_of_860_million_parameters(bundle, seconds):
    torch.set_num_threads(2)
    with timed(seconds, "load"):
        components = load_components(bundle)
    assert sum(value.numel() for value in components.unet.parameters()) == 859_520_964
    assert len(components.tokenizer) == 49_408
    annotator = load_annotator(components)
    prompts = ["a photo of a happy woman"]

    def draw(guidance: SemanticGuidance | None):
        return denoise(
            components,
            SamplingConfig(num_inference_steps=3, eta=0.0, guidance_scale=7.5, au_guidance_scale=None),
            initial_noise([1], components.latent_shape(SIZE)),
            prompt_embeds=encode_prompt(components, prompts),
            empty_embeds=encode_prompt(components, [""]),
            au_tokens=components.adapter.encode(torch.full((1, 41), 0.5)),
            guidance=guidance,
            targets=torch.eye(7)[[1]],
            token_mask=word_mask(components, prompts),
        )

    guide = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(8), torch.nn.Flatten(), torch.nn.Linear(192, 7))
    with timed(seconds, "three steps, two of them guided"):
        guided = draw(SemanticGuidance(guide.requires_grad_(False), start=0.0))
    with timed(seconds, "three steps"):
        plain = draw(None)
    assert guided.guidance_skipped.tolist() == [0]
    assert guided.latents.isfinite().all() and not torch.equal(guided.latents, plain.latents)
    with timed(seconds, "FERAnno"):
        annotation = annotator.from_latents(guided.latents)
    with timed(seconds, "decode"):
        assert decode_latents(components, guided.latents).shape == (1, 3, SIZE, SIZE)
    assert list(annotation.attention) == [2, 4, 8, 16]
    torch.testing.assert_close(annotation.probs.sum(), torch.tensor(1.0))


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_settings_of_sd15_run_end_to_end(bundle, tmp_path, seconds):
    """Guided, FERAnno fused, voted and written, with experts of the bundle in place of published ones."""
    reduced = [
        f"bundle={bundle}",
        f"output={tmp_path / 'out'}",
        f"image_size={SIZE}",
        "num_images=4",
        "batch_size=2",
        "shard_rows=4",
        "sampling.num_inference_steps=4",
        "guidance.guide=guide",
        "voters=[feranno,residual,separable]",
        "vote.on_mismatch=keep_soft",
        "generator_pool.num_gpus=0",
    ]
    config = load_config(GenerateConfig, str(CONFIGS / "sd15.yaml"), reduced)
    assert config.dtype == "bfloat16" and config.memory.gradient_checkpointing
    with timed(seconds, "job"), Resident() as resident:
        generate(config)
    assert verify(config.output) == []
    manifest = read_manifest(config.output)
    assert manifest.planned_rows == 4
    for commit in read_commits(config.output):
        for stage, value in commit.seconds.items():
            seconds[stage] += value
    rows = pq.read_table(Path(config.output) / "data").to_pylist()
    assert rows and all(row["guidance_skipped"] == 0 for row in rows)
    assert all(len(row["voter_feranno"]) == 7 for row in rows)
    print(*(f"{name}: {mib} MiB" for name, mib in resident.peaks.items() if "MapWorker" in name), sep="\n")
