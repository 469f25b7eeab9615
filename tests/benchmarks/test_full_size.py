import json

import pytest
import torch

from synfer_ray.benchmarks.full_size import GAINS, count_flops, count_image, measure_gpu, stage_flops
from synfer_ray.benchmarks.job import RATIOS, benchmark
from synfer_ray.benchmarks.random_model import clip_sized_tokenizer
from synfer_ray.config import BenchmarkConfig, FullSizeConfig, MemoryConfig
from synfer_ray.errors import InputError
from tests.tiny import tiny_taesd
from tests.tiny_bundle import save_tiny_bundle


def test_a_matrix_product_and_its_gradient_are_counted():
    a, b = torch.randn(3, 5), torch.randn(5, 7, requires_grad=True)
    assert count_flops(lambda: a @ b) == 2 * 3 * 5 * 7

    def both():
        with torch.enable_grad():
            torch.autograd.grad((a @ b).sum(), b)

    assert count_flops(both) == 2 * 2 * 3 * 5 * 7


def test_the_operations_of_stable_diffusion_are_those_counted_elsewhere():
    """.180 TFLOP a U-Net pass at 256 px, and about a quarter of 2.515 and 1.117 for the autoencoder."""
    counted = {name: value / 1e12 for name, value in stage_flops(256).items()}
    assert counted["unet"] == pytest.approx(0.180, abs=0.001)  # the AU branch adds a thousandth
    assert counted["decode"] == pytest.approx(2.515 / 4, rel=0.02)
    assert counted["encode"] == pytest.approx(1.117 / 4, rel=0.03)
    assert counted["unet"] < counted["feranno"] < 1.02 * counted["unet"]
    there_and_back = 2 * (counted["unet"] + counted["decode"])
    assert counted["guided"] == pytest.approx(there_and_back, rel=0.02)
    assert counted["guided through preview"] < 0.3 * counted["guided"]


@pytest.mark.slow
def test_the_table_has_the_operations_of_an_image(tmp_path):
    benchmark(BenchmarkConfig(output=str(tmp_path), parts=["flops"]))
    ratios = json.loads((tmp_path / "benchmark.json").read_text())["ratios"]
    assert ratios["H1 TFLOP"]["value"] == pytest.approx(34.6, abs=0.1)
    assert ratios["H5 FLOP"]["value"] == pytest.approx(0.073, abs=0.001)
    assert ratios["H6 FLOP"]["value"] == pytest.approx(1.023, abs=0.001)
    assert ratios["H6 FLOP apart"]["value"] == pytest.approx(1.055, abs=0.001)
    assert ratios["H4 FLOP"]["value"] == pytest.approx(1.143, abs=0.001)  # four guided steps of twenty
    assert ratios["H4 FLOP decoder"]["value"] == pytest.approx(1.738, abs=0.001)


@pytest.mark.skipif(torch.cuda.is_available(), reason="for machines without a GPU")
def test_without_a_gpu_its_part_says_so(tmp_path):
    with pytest.raises(InputError, match="'gpu' of the benchmark needs a CUDA device"):
        benchmark(BenchmarkConfig(output=str(tmp_path), parts=["gpu"]))


def test_settings_that_cannot_be_measured_are_refused():
    with pytest.raises(InputError, match=r"\[512\]; two are compared"):
        count_image(FullSizeConfig(image_sizes=[512]))
    with pytest.raises(InputError, match="'int4'"):
        count_image(FullSizeConfig(dtype="int4"))


@pytest.mark.slow
def test_a_text_scale_of_1_halves_the_denoising():
    guided, plain = (count_image(FullSizeConfig(guidance_scale=scale)) for scale in (7.5, 1.0))
    decoder = guided["H5 FLOP"][0] * guided["H1 TFLOP"][0]
    assert guided["H1 TFLOP"][0] - decoder == pytest.approx(2 * (plain["H1 TFLOP"][0] - decoder))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_the_gpu_part_measures_on_a_tiny_model(tmp_path, two_cpus, monkeypatch):
    bundle = save_tiny_bundle(tmp_path / "bundle")
    tiny_taesd().save_pretrained(bundle / "preview")
    counted = count_image(FullSizeConfig())
    monkeypatch.setattr("synfer_ray.benchmarks.full_size.count_image", lambda config: counted)
    config = FullSizeConfig(
        bundle=str(bundle),
        image_sizes=[32, 16],
        num_inference_steps=4,
        batch_size=2,
        memory=MemoryConfig(channels_last=True),
    )
    with torch.compiler.set_stance("force_eager"):  # a compiler for the CPU would take minutes
        measured = measure_gpu(config, str(tmp_path / "out"), repetitions=1)
    assert measured.keys() == {name for name in RATIOS if name.startswith(("H", "gain"))}
    assert {f"gain {name}" for name in GAINS} <= measured.keys()
    values = {name: getattr(value[0], "wall", value[0]) for name, value in measured.items()}
    assert all(value > 0 for value in values.values())
    assert values["H6"] > 1 and 0 < values["H5"] < 1
    assert values["H1 MFU"] == pytest.approx(values["H1"] * values["H1 TFLOP"] / config.peak_tflops)


def test_the_tokenizer_has_as_many_tokens_as_clip():
    tokenizer = clip_sized_tokenizer()
    assert len(tokenizer) == 49408
    ids = tokenizer("a photo of a happy woman", padding="max_length", truncation=True).input_ids
    assert len(ids) == 77 and max(ids) < 49408
    assert tokenizer.decode(ids, skip_special_tokens=True) == "a photo of a happy woman"
