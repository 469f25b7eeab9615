import json
import math

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.attention_processor import AttnProcessor2_0, IPAdapterAttnProcessor2_0
from safetensors.torch import load_file, save_file
from torch import nn

from synfer_ray.diffusion.attention import cross_attention_blocks
from synfer_ray.diffusion.au_adapter import AUAdapter
from synfer_ray.diffusion.interchange import (
    attached_adapter,
    import_fineface,
    import_ip_adapter,
    load_processors,
    save_processors,
)
from synfer_ray.errors import InputError
from synfer_ray.storage.weights import load_model, save_model
from synfer_ray.taxonomy.action_units import ACTION_UNITS, au_vector
from tests.tiny import tiny_adapter, tiny_unet

WIDTH = 80
LATENTS = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
TEXT = torch.randn(2, 12, WIDTH, generator=torch.Generator().manual_seed(2))
UNITS = torch.rand(2, 41, generator=torch.Generator().manual_seed(3))


def unet():
    return tiny_unet(cross_attention_dim=WIDTH)


def draw(*shape):
    return torch.randn(*shape) / math.sqrt(shape[-1])


@torch.no_grad()
def run(model, adapter, units=UNITS, scale=1.0):
    adapter.attach(model, scale=scale)
    return model(LATENTS, 500, torch.cat([TEXT, adapter.encode(units)], dim=1)).sample


# FineFace


class FineFaceProcessor(nn.Module):
    """FineFace's attention, as its paper describes it; the token is set before the U-Net runs."""

    token: torch.Tensor

    def __init__(self, width, channels):
        super().__init__()
        self.au_to_k, self.au_to_v = nn.Linear(width, channels, False), nn.Linear(width, channels, False)

    def __call__(self, attn, hidden_states, encoder_hidden_states, attention_mask=None, temb=None):
        def heads(x):
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        query = heads(attn.to_q(hidden_states))
        text = [heads(project(encoder_hidden_states)) for project in (attn.to_k, attn.to_v)]
        units = [heads(project(self.token)) for project in (self.au_to_k, self.au_to_v)]
        both = sum(F.scaled_dot_product_attention(query, *pair) for pair in (text, units))
        return attn.to_out[0](both.transpose(1, 2).flatten(2))


@pytest.fixture
def fineface(tmp_path):
    """A U-Net with FineFace's processors, and the files that its script writes."""
    model = unet()
    torch.manual_seed(0)
    processors = {
        name: FineFaceProcessor(WIDTH, model.get_submodule(name.removesuffix(".processor")).inner_dim)
        if name.endswith("attn2.processor")
        else AttnProcessor2_0()
        for name in model.attn_processors
    }
    model.set_attn_processor(processors)
    for key, value in model.state_dict().items():
        if "processor" in key:
            value.copy_(draw(*value.shape))
    saved = {key: value for key, value in model.state_dict().items() if "attn2.processor" in key}
    assert len(saved) == 32
    assert "down_blocks.0.attentions.0.transformer_blocks.0.attn2.processor.au_to_k.weight" in saved
    encoder = {"au_encoder.weight": draw(64, 12), "au_encoder.bias": draw(64)}
    torch.save(saved, tmp_path / "attn_processors.ckpt")
    torch.save(encoder, tmp_path / "au_encoder.ckpt")
    return model, encoder, tmp_path


def fineface_token(encoder, intensities):
    """Twelve intensities from 0 to 5, 64 numbers made of them, zeros."""
    hidden = intensities @ encoder["au_encoder.weight"].T + encoder["au_encoder.bias"]
    return F.pad(torch.cat([intensities, hidden], dim=1), (0, WIDTH - 76))[:, None]


def test_fineface_gives_the_same_image(fineface, capsys):
    theirs, encoder, folder = fineface
    model = unet()
    adapter = import_fineface(folder, model)
    assert "loaded 34 tensors, missing 0, unexpected 0" in capsys.readouterr().out
    names = ["AU01", "AU02", "AU04", "AU05", "AU06", "AU09", "AU12", "AU15", "AU17", "AU20", "AU25", "AU26"]
    assert adapter.config["supported"] == names
    intensities = torch.tensor([[0, 0, 0, 0, 3.5, 0, 4, 0, 0, 0, 1, 0], [2, 0, 1, 0, 0, 0, 0, 5, 0, 0, 0, 0]])
    units = torch.stack(
        [
            torch.from_numpy(au_vector(dict(zip(names, (row / 5).tolist())), fill=torch.nan))
            for row in intensities
        ]
    )
    for name, processor in theirs.attn_processors.items():
        if name.endswith("attn2.processor"):
            processor.token = fineface_token(encoder, intensities)
    with torch.no_grad():
        expected = theirs(LATENTS, 500, TEXT).sample
    found = run(model, adapter, units)
    assert torch.allclose(found, expected, atol=1e-5)
    assert not torch.allclose(found, run(model, adapter, torch.zeros(2, 41)), atol=1e-3)
    null = fineface_token(encoder, torch.zeros(1, 12))
    assert torch.allclose(adapter.null_tokens(1), null)


def test_fineface_files_that_do_not_fit_are_refused(fineface, tmp_path):
    _, encoder, folder = fineface
    with pytest.raises(InputError, match=r"missing: .*wrong shape|wrong shape: .*attn2\.processor\.au_to_k"):
        import_fineface(folder, tiny_unet(cross_attention_dim=96))
    with pytest.raises(InputError, match="text tokens of width 16"):
        import_fineface(folder, tiny_unet())
    torch.save(encoder | {"au_encoder.weight": draw(64, 41)}, folder / "au_encoder.ckpt")
    with pytest.raises(InputError, match=r"au_encoder\.weight \(64, 41\) instead of \(64, 12\)"):
        import_fineface(folder, unet())
    (folder / "au_encoder.ckpt").unlink()
    with pytest.raises(InputError, match="missing model file"):
        import_fineface(folder, unet())


# IP-Adapter


def ip_adapter_weights(model, tokens=4, inputs=41):
    """The layout of IP-Adapter's files: processors by number, of which 1, 3, ... 31 have weights."""
    torch.manual_seed(0)
    channels = [attention.inner_dim for _, attention in cross_attention_blocks(model)]
    image_proj = {
        "proj.weight": draw(tokens * WIDTH, inputs),
        "proj.bias": draw(tokens * WIDTH),
        "norm.weight": torch.rand(WIDTH) + 0.5,
        "norm.bias": draw(WIDTH),
    }
    ip_adapter = {
        f"{number}.to_{part}_ip.weight": draw(width, WIDTH)
        for number, width in zip(range(1, 32, 2), channels)
        for part in "kv"
    }
    return {"image_proj": image_proj, "ip_adapter": ip_adapter}


def flat(weights):
    return {f"{name}.{key}": value for name, part in weights.items() for key, value in part.items()}


@pytest.mark.parametrize("kind", ["bin", "safetensors"])
def test_an_ip_adapter_of_action_units_gives_diffusers_own_image(tmp_path, kind):
    theirs, weights, path = unet(), ip_adapter_weights(unet()), tmp_path / f"adapter.{kind}"
    if kind == "bin":
        torch.save(weights, path)
    else:
        save_file(flat(weights), path)
    processors = {}
    for number, name in enumerate(theirs.attn_processors):
        processors[name] = AttnProcessor2_0()
        if number % 2:
            width = theirs.get_submodule(name.removesuffix(".processor")).inner_dim
            processors[name] = IPAdapterAttnProcessor2_0(width, WIDTH, num_tokens=(4,), scale=0.7)
            for part in ("to_k_ip", "to_v_ip"):
                getattr(processors[name], part)[0].weight.data = weights["ip_adapter"][
                    f"{number}.{part}.weight"
                ]
    theirs.set_attn_processor(processors)
    project = weights["image_proj"]
    tokens = (UNITS @ project["proj.weight"].T + project["proj.bias"]).view(2, 4, WIDTH)
    tokens = F.layer_norm(tokens, (WIDTH,), project["norm.weight"], project["norm.bias"])
    with torch.no_grad():
        expected = theirs(LATENTS, 500, (TEXT, [tokens[:, None]])).sample

    model = unet()
    adapter = import_ip_adapter(path, model)
    assert adapter.num_tokens == 4
    assert torch.allclose(run(model, adapter, scale=0.7), expected, atol=1e-5)
    save_model(adapter, tmp_path / "au_adapter")
    again = load_model(AUAdapter, tmp_path / "au_adapter")
    assert torch.equal(run(model, again, scale=0.7), run(model, adapter, scale=0.7))


def test_other_units_go_by_name(tmp_path):
    model, units = unet(), ("AU12", "AU04", "AUL14")
    torch.save(ip_adapter_weights(model, tokens=2, inputs=3), tmp_path / "adapter.bin")
    adapter = import_ip_adapter(tmp_path / "adapter.bin", model, units)
    changed = UNITS.clone()
    changed[:, [index for index, name in enumerate(ACTION_UNITS) if name not in units]] = 0.5
    assert torch.equal(adapter.encode(changed), adapter.encode(UNITS))
    changed[:, ACTION_UNITS.index("AUL14")] += 0.5
    assert not torch.allclose(adapter.encode(changed), adapter.encode(UNITS))


def test_adapters_of_images_and_other_models_are_refused(tmp_path):
    model, path = unet(), tmp_path / "adapter.bin"
    good = ip_adapter_weights(model)
    plus = good | {"image_proj": {"proj.0.weight": draw(8, 8), "latents": draw(1, 16, 8)}}
    processors = good["ip_adapter"]
    lacking = {key: value for key, value in processors.items() if key != "31.to_v_ip.weight"}
    for weights, message in [
        (
            ip_adapter_weights(model, inputs=1024),
            "reads 1024 numbers, not 41 action units: .* adapter of images",
        ),
        (plus, r"image_proj.proj.weight with image_proj.norm is needed, but it has image_proj.latents"),
        (
            {"image_proj": good["image_proj"], "ip_adapter": lacking},
            r"missing: ip_adapter\.31\.to_v_ip\.weight",
        ),
        (
            good | {"ip_adapter": processors | {"0.to_k_ip.weight": draw(8, WIDTH)}},
            r"unexpected: ip_adapter\.0\.to_k_ip\.weight",
        ),
        (
            good | {"ip_adapter": processors | {"1.to_k_ip.weight": draw(320, 768)}},
            r"wrong shape: ip_adapter\.1\.to_k_ip\.weight \(320, 768\)",
        ),
    ]:
        torch.save(weights, path)
        with pytest.raises(InputError, match=message):
            import_ip_adapter(path, model)
    torch.save(good, path)
    with pytest.raises(InputError, match="320 is no multiple of the text width 96"):
        import_ip_adapter(path, tiny_unet(cross_attention_dim=96))


# diffusers' attention processors, LoRA and torch.compile


def test_ours_travel_as_attention_processors(tmp_path):
    model = unet()
    adapter = tiny_adapter(model)
    expected = run(model, adapter)
    save_processors(model, tmp_path)
    other = unet()
    loaded = load_processors(other, tmp_path)
    assert attached_adapter(other) is loaded
    assert torch.equal(run(other, loaded), expected)
    installed = other.attn_processors
    other.set_attn_processor(AttnProcessor2_0())
    with pytest.raises(InputError, match="no AU adapter is attached"):
        save_processors(other, tmp_path)
    other.set_attn_processor(installed)
    with torch.no_grad():
        context = torch.cat([TEXT, loaded.encode(UNITS)], dim=1)
        assert torch.equal(other(LATENTS, 500, context).sample, expected)


def test_processors_of_another_model_are_refused(tmp_path):
    model = unet()
    tiny_adapter(model).attach(model)
    save_processors(model, tmp_path)
    with pytest.raises(InputError, match=r"does not fit this U-Net: block_channels \[8, .*, 16\] instead of"):
        load_processors(tiny_unet(cross_attention_dim=WIDTH, block_out_channels=(8, 8, 16, 24)), tmp_path)
    (tmp_path / "au_adapter.json").write_text(json.dumps({"width": 3}))
    with pytest.raises(InputError, match="does not describe an AU adapter"):
        load_processors(model, tmp_path)


def test_lora_and_the_adapter_do_not_disturb_each_other(tmp_path):
    peft = pytest.importorskip("peft")
    model = unet()
    adapter = tiny_adapter(model)
    plain = run(model, adapter)
    torch.manual_seed(0)
    model.add_adapter(
        peft.LoraConfig(
            r=2,
            lora_alpha=2,
            target_modules=["to_q", "to_k", "to_v", "to_out.0"],
            init_lora_weights="gaussian",
        )
    )
    assert torch.allclose(run(model, adapter), plain, atol=1e-6)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data.normal_(std=0.3)
    tuned = run(model, adapter)
    assert not torch.allclose(tuned, plain, atol=1e-3)
    assert not torch.allclose(tuned, run(model, adapter, scale=0.0), atol=1e-3)

    adapter.requires_grad_().attach(model)
    model(LATENTS, 500, torch.cat([TEXT, adapter.encode(UNITS)], dim=1)).sample.square().sum().backward()
    grown = [value.grad.abs().sum() for name, value in model.named_parameters() if "lora_A" in name]
    assert sum(grown) > 0 and adapter.layers[0].to_k.weight.grad.abs().sum() > 0

    model.save_lora_adapter(tmp_path / "lora")
    save_processors(model, tmp_path / "units")
    other = unet()
    weights = load_file(tmp_path / "lora" / "pytorch_lora_weights.safetensors")
    other.load_lora_adapter(weights, prefix=None)
    assert torch.allclose(run(other, load_processors(other, tmp_path / "units")), tuned, atol=1e-5)


@pytest.mark.slow
@pytest.mark.timeout(900)
@torch.no_grad()
def test_a_compiled_model_draws_the_same(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    model = tiny_unet(cross_attention_dim=WIDTH, layers_per_block=1)
    adapter = tiny_adapter(model)
    expected = run(model, adapter)
    context = torch.cat([TEXT, adapter.encode(UNITS)], dim=1)
    compiled = torch.compile(model, fullgraph=True)
    assert torch.allclose(compiled(LATENTS, 500, context).sample, expected, atol=1e-4)
    adapter.scale = 0.5
    assert torch.allclose(compiled(LATENTS, 500, context).sample, run(model, adapter, scale=0.5), atol=1e-4)
