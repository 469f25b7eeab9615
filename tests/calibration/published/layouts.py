"""Key names and shapes of released checkpoints, as their authors' code writes them, with random weights."""

import math
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

Layout = dict[str, tuple[int, ...]]
Entries = Iterator[tuple[str, tuple[int, ...]]]


def conv(name: str, outputs: int, inputs: int, kernel: int = 1, bias: bool = False) -> Entries:
    yield f"{name}.weight", (outputs, inputs, kernel, kernel)
    if bias:
        yield f"{name}.bias", (outputs,)


def linear(name: str, outputs: int, inputs: int, bias: bool = True) -> Entries:
    yield f"{name}.weight", (outputs, inputs)
    if bias:
        yield f"{name}.bias", (outputs,)


def layer_norm(name: str, width: int) -> Entries:
    yield f"{name}.weight", (width,)
    yield f"{name}.bias", (width,)


def batch_norm(name: str, width: int) -> Entries:
    yield from layer_norm(name, width)
    yield f"{name}.running_mean", (width,)
    yield f"{name}.running_var", (width,)
    yield f"{name}.num_batches_tracked", ()


def residual_stage(name: str, inputs: int, planes: int, depth: int, bottleneck: bool, stride: int) -> Entries:
    outputs = planes * (4 if bottleneck else 1)
    for index in range(depth):
        block, first = f"{name}.{index}", inputs if index == 0 else outputs
        shapes = (
            [(planes, first, 1), (planes, planes, 3), (outputs, planes, 1)]
            if bottleneck
            else [(planes, first, 3), (planes, planes, 3)]
        )
        for number, (out, into, kernel) in enumerate(shapes, start=1):
            yield from conv(f"{block}.conv{number}", out, into, kernel)
            yield from batch_norm(f"{block}.bn{number}", out)
        if index == 0 and (stride != 1 or inputs != outputs):
            yield from conv(f"{block}.downsample.0", outputs, inputs)
            yield from batch_norm(f"{block}.downsample.1", outputs)


def resnet(prefix: str, depths: tuple[int, ...], bottleneck: bool) -> Entries:
    yield from conv(f"{prefix}.conv1", 64, 3, 7)
    yield from batch_norm(f"{prefix}.bn1", 64)
    inputs = 64
    for index, depth in enumerate(depths):
        planes = 64 << index
        name = f"{prefix}.layer{index + 1}"
        yield from residual_stage(name, inputs, planes, depth, bottleneck, 1 if index == 0 else 2)
        inputs = planes * (4 if bottleneck else 1)


def swin(prefix: str, width: int, depths: tuple[int, ...], heads: tuple[int, ...]) -> Entries:
    yield from conv(f"{prefix}.patch_embed.proj", width, 3, 4, bias=True)
    yield from layer_norm(f"{prefix}.patch_embed.norm", width)
    for stage, depth in enumerate(depths):
        channels, side = width << stage, 56 >> stage
        for index in range(depth):
            block = f"{prefix}.layers.{stage}.blocks.{index}"
            yield from layer_norm(f"{block}.norm1", channels)
            yield f"{block}.attn.relative_position_bias_table", (169, heads[stage])
            yield f"{block}.attn.relative_position_index", (49, 49)
            yield from linear(f"{block}.attn.qkv", 3 * channels, channels)
            yield from linear(f"{block}.attn.proj", channels, channels)
            yield from layer_norm(f"{block}.norm2", channels)
            yield from linear(f"{block}.mlp.fc1", 4 * channels, channels)
            yield from linear(f"{block}.mlp.fc2", channels, 4 * channels)
            if index % 2 and side > 7:
                yield f"{block}.attn_mask", ((side // 7) ** 2, 49, 49)
        if stage < 3:
            yield from linear(
                f"{prefix}.layers.{stage}.downsample.reduction", 2 * channels, 4 * channels, bias=False
            )
            yield from layer_norm(f"{prefix}.layers.{stage}.downsample.norm", 4 * channels)
    yield from layer_norm(f"{prefix}.norm", width * 8)


def open_graph_au(backbone: str, stage: int) -> Layout:
    """OpenGraphAU by backbone and stage (its `model/ANFL.py` and `model/MEFL.py`)."""
    trunks = {
        "resnet18": (lambda: resnet("backbone", (2, 2, 2, 2), False), 512, 128),
        "resnet50": (lambda: resnet("backbone", (3, 4, 6, 3), True), 2048, 512),
        "resnet101": (lambda: resnet("backbone", (3, 4, 23, 3), True), 2048, 512),
        "swin_tiny": (lambda: swin("backbone", 96, (2, 2, 6, 2), (3, 6, 12, 24)), 768, 384),
        "swin_small": (lambda: swin("backbone", 96, (2, 2, 18, 2), (3, 6, 12, 24)), 768, 384),
        "swin_base": (lambda: swin("backbone", 128, (2, 2, 18, 2), (4, 8, 16, 32)), 1024, 512),
    }
    trunk, inputs, width = trunks[backbone]

    def entries() -> Entries:
        yield from trunk()
        yield from linear("global_linear.fc", width, inputs)
        yield from batch_norm("global_linear.bn", width)
        for index in range(27):
            yield from linear(f"head.main_class_linears.{index}.fc", width, width)
            yield from batch_norm(f"head.main_class_linears.{index}.bn", width)
        yield "head.main_sc", (27, width)
        yield "head.sub_sc", (14, width)
        if stage == 1:
            yield from linear("head.gnn.U", width, width)
            yield from linear("head.gnn.V", width, width)
            yield from batch_norm("head.gnn.bnv", 27)
            return
        for part in ("FAM", "ARM"):
            yield from linear(f"head.edge_extractor.{part}.linear_q", width // 2, width)
            yield from linear(f"head.edge_extractor.{part}.linear_k", width // 2, width)
            yield from linear(f"head.edge_extractor.{part}.linear_v", width, width)
        yield from linear("head.edge_extractor.edge_proj", width, width)
        yield from batch_norm("head.edge_extractor.bn", 729)
        for layer in range(2):
            for name in "UVABE":
                yield from linear(f"head.gnn.graph_layers.{layer}.{name}", width, width, bias=False)
            yield from batch_norm(f"head.gnn.graph_layers.{layer}.bnv", 27)
            yield from batch_norm(f"head.gnn.graph_layers.{layer}.bne", 729)

    return dict(entries())


def ir50(prefix: str, stages: tuple[str, ...]) -> Entries:
    yield from conv(f"{prefix}.input_layer.0", 64, 3, 3)
    yield from batch_norm(f"{prefix}.input_layer.1", 64)
    yield f"{prefix}.input_layer.2.weight", (64,)
    for stage, inputs, outputs, depth in zip(stages, (64, 64, 128), (64, 128, 256), (3, 4, 14)):
        for index in range(depth):
            unit, into = f"{prefix}.{stage}.{index}", inputs if index == 0 else outputs
            if into != outputs:
                yield from conv(f"{unit}.shortcut_layer.0", outputs, into)
                yield from batch_norm(f"{unit}.shortcut_layer.1", outputs)
            yield from batch_norm(f"{unit}.res_layer.0", into)
            yield from conv(f"{unit}.res_layer.1", outputs, into, 3)
            yield f"{unit}.res_layer.2.weight", (outputs,)
            yield from conv(f"{unit}.res_layer.3", outputs, outputs, 3)
            yield from batch_norm(f"{unit}.res_layer.4", outputs)


def mobilefacenet(prefix: str) -> Entries:
    def block(name: str, outputs: int, inputs: int, kernel: int = 1, prelu: bool = True) -> Entries:
        yield from conv(f"{prefix}.{name}.conv", outputs, inputs, kernel)
        yield from batch_norm(f"{prefix}.{name}.bn", outputs)
        if prelu:
            yield f"{prefix}.{name}.prelu.weight", (outputs,)

    def depth_wise(name: str, inputs: int, outputs: int, inner: int) -> Entries:
        yield from block(f"{name}.conv", inner, inputs)
        yield from block(f"{name}.conv_dw", inner, 1, 3)
        yield from block(f"{name}.project", outputs, inner, prelu=False)

    yield from block("conv1", 64, 3, 3)
    yield from block("conv2_dw", 64, 1, 3)
    yield from depth_wise("conv_23", 64, 64, 128)
    for index in range(4):
        yield from depth_wise(f"conv_3.model.{index}", 64, 64, 128)
    yield from depth_wise("conv_34", 64, 128, 256)
    for index in range(6):
        yield from depth_wise(f"conv_4.model.{index}", 128, 128, 256)
    yield from depth_wise("conv_45", 128, 128, 512)
    for index in range(2):
        yield from depth_wise(f"conv_5.model.{index}", 128, 128, 256)
    yield from block("conv_6_sep", 512, 128)
    yield from block("output_layer.conv_6_dw", 512, 1, 7, prelu=False)
    yield from linear(f"{prefix}.output_layer.linear", 136, 512, bias=False)
    yield from batch_norm(f"{prefix}.output_layer.bn", 136)


def vit_block(name: str, width: int, hidden: int, qkv_bias: bool) -> Entries:
    yield from layer_norm(f"{name}.norm1", width)
    yield from linear(f"{name}.attn.qkv", 3 * width, width, qkv_bias)
    yield from linear(f"{name}.attn.proj", width, width)
    yield from layer_norm(f"{name}.norm2", width)
    yield from linear(f"{name}.mlp.fc1", hidden, width)
    yield from linear(f"{name}.mlp.fc2", width, hidden)


def poster_v2(classes: int) -> Layout:
    """POSTER++ (its `models/PosterV2_7cls.py` and `PosterV2_8cls.py`)."""

    def entries() -> Entries:
        yield from mobilefacenet("face_landback")
        yield "VIT.cls_token", (1, 1, 768)
        yield "VIT.pos_embed", (1, 148, 768)
        yield from linear("VIT.se_block.linear1", 768, 768)
        yield from linear("VIT.se_block.linear2", 768, 768)
        yield from conv("VIT.patch_embed.proj", 768, 256, bias=True)
        yield from linear("VIT.head.linear", classes, 768)
        yield "VIT.eca_block.conv.weight", (1, 1, 5)
        yield from conv("VIT.CON1", 768, 256)
        yield from linear("VIT.IRLinear1", 768, 1024)
        yield from linear("VIT.IRLinear2", 512, 768)
        for index in range(2):
            yield f"VIT.blocks.{index}.conv.weight", (148, 148, 1)
            yield f"VIT.blocks.{index}.conv.bias", (148,)
            yield from vit_block(f"VIT.blocks.{index}", 768, 3072, qkv_bias=True)
        yield from layer_norm("VIT.norm", 768)
        yield from ir50("ir_back", ("body1", "body2", "body3"))
        yield from batch_norm("ir_back.output_layer.0", 512)
        yield from linear("ir_back.output_layer.3", 512, 25088)
        yield from batch_norm("ir_back.output_layer.4", 512)
        for number, width, window, heads in ((1, 64, 28, 2), (2, 128, 14, 4), (3, 256, 7, 8)):
            yield f"attn{number}.relative_position_bias_table", ((2 * window - 1) ** 2, heads)
            yield f"attn{number}.relative_position_index", (window**2, window**2)
            yield from linear(f"attn{number}.qkv", 2 * width, width)
            yield from linear(f"attn{number}.proj", width, width)
            yield from layer_norm(f"window{number}.norm", width)
            yield from conv(f"conv{number}", width, width, 3, bias=True)
            yield f"ffn{number}.gamma1", (width,)
            yield f"ffn{number}.gamma2", (width,)
            yield from linear(f"ffn{number}.mlp.fc1", 4 * width, width)
            yield from linear(f"ffn{number}.mlp.fc2", width, 4 * width)
            yield from layer_norm(f"ffn{number}.norm", width)
        yield from conv("last_face_conv", 256, 512, 3, bias=True)
        yield from conv("embed_q.0", 768, 64, 3, bias=True)
        yield from conv("embed_q.1", 768, 768, 3, bias=True)
        yield from conv("embed_k.0", 768, 128, 3, bias=True)
        yield from conv("embed_v.proj", 768, 256, bias=True)

    return dict(entries())


def apvit(classes: int) -> Layout:
    """APViT (its `configs/apvit/RAF.py`)."""

    def entries() -> Entries:
        yield from ir50("extractor", ("body.0", "body.1", "body.2"))
        yield "vit.cls_token", (1, 1, 768)
        yield "vit.patch_pos_embed", (1, 196, 768)
        yield "vit.cls_pos_embed", (1, 1, 768)
        yield from conv("vit.projs.0", 768, 256, bias=True)
        for index in range(8):
            yield from vit_block(f"vit.blocks.{index}", 768, 2304, qkv_bias=False)
        yield from layer_norm("vit.norm", 768)
        yield from linear("head.fc", classes, 768)

    return dict(entries())


def ada_df(classes: int) -> Layout:
    """Ada-DF (its `model.py`): what the branches share is stored again under each of its names."""

    def entries() -> Entries:
        yield from conv("feature.0", 64, 3, 7)
        yield from batch_norm("feature.1", 64)
        yield from residual_stage("feature.4", 64, 64, 2, bottleneck=False, stride=1)
        for branch in ("branch_1", "branch_2"):
            for name in (branch, f"{branch}_feature"):
                for index, planes in enumerate((128, 256, 512)):
                    yield from residual_stage(f"{name}.{index}", planes // 2, planes, 2, False, 2)
            yield from linear(f"{branch}.4", classes, 512)
            yield from linear(f"{branch}_classifier", classes, 512)
        yield from linear("alpha_1.0", 1, 512)
        yield from linear("alpha_2.0", 1, 512)

    return dict(entries())


def random_weights(layout: Layout, seed: int = 0) -> dict[str, Tensor]:
    """Weights under which signals neither fade nor grow; the constants that files store are the true ones."""
    generator = torch.Generator().manual_seed(seed)
    return {name: _value(name, layout[name], generator) for name in sorted(layout)}


def save_pickle(path: Path, weights: Mapping[str, Tensor], prefix: str = "module.", **beside: object) -> Path:
    """Writes a training checkpoint as `torch.nn.DataParallel` scripts do."""
    torch.save({"state_dict": {prefix + key: value for key, value in weights.items()}, **beside}, path)
    return path


def face_like(count: int, side: int = 64) -> Tensor:
    """Smooth pictures [count, 3, side, side] in [-1, 1]."""
    axis = torch.linspace(0, 3, side)
    waves = [
        torch.sin((channel + 1) * axis[:, None] + image) * torch.cos(axis[None] * (image + 1) - channel)
        for image in range(count)
        for channel in range(3)
    ]
    return torch.stack(waves).view(count, 3, side, side)


def _value(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    kind = name.rsplit(".", 1)[-1]
    if kind == "num_batches_tracked":
        return torch.tensor(7)
    if kind == "relative_position_index":
        return offsets(math.isqrt(shape[0]))
    if kind == "attn_mask":
        return shifted_mask(7 * math.isqrt(shape[0]))
    noise = torch.randn(shape, generator=generator)
    if kind == "running_var":
        return 0.5 + noise.abs()
    if len(shape) > 1:
        return noise * 0.7 * math.sqrt(2 / math.prod(shape[1:]))
    return 0.1 * noise + (1.0 if kind in ("weight", "gamma1", "gamma2") else 0.0)


def offsets(window: int) -> Tensor:
    """Index of the offset between two places of a window, by its definition."""
    places = [(row, column) for row in range(window) for column in range(window)]
    first, second = torch.tensor(places)[:, None], torch.tensor(places)[None]
    down, right = (first - second + window - 1).unbind(-1)
    return down * (2 * window - 1) + right


def shifted_mask(side: int) -> Tensor:
    """Which places of a 7 x 7 window were neighbours before the image was rolled by three, by definition."""
    region = [0 if place < side - 7 else 1 if place < side - 3 else 2 for place in range(side)]
    windows = []
    for top in range(0, side, 7):
        for left in range(0, side, 7):
            inside = [
                (region[row], region[column])
                for row in range(top, top + 7)
                for column in range(left, left + 7)
            ]
            windows.append([[0.0 if a == b else -100.0 for b in inside] for a in inside])
    return torch.tensor(windows)
