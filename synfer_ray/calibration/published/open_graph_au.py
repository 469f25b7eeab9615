"""OpenGraphAU: 41 action units from a face, by a graph over 27 units (Luo et al. 2022, arXiv 2205.01782).

github.com/lingjivoo/OpenGraphAU, Apache-2.0. Stage 1 relates each unit to the four most alike; stage 2 gives
every ordered pair of units an edge feature. The output of a unit is the cosine between its node and a learned
direction, both non-negative: it lies in [0, 1] without a sigmoid, and counts as present from 0.5 on.

The published mapping of side units is ambiguous: the pair called L12/R12 in the code and in its training
labels is read from the node of AU11, and the documentation calls it "nasolabial deepener", which is AU11. It
keeps its place and its name AUL12/AUR12 here; see `AMBIGUOUS_UNITS`.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synfer_ray.calibration.published.pixels import Pixels
from synfer_ray.calibration.published.relation_graph import EdgeExtractor, EdgeGraph, NeighbourGraph, Unit
from synfer_ray.calibration.published.resnet import BasicBlock, Bottleneck, ResNet
from synfer_ray.calibration.published.swin import SwinTransformer
from synfer_ray.errors import InputError, choose
from synfer_ray.storage.foreign import import_weights, read_checkpoint
from synfer_ray.taxonomy.action_units import ACTION_UNITS, LEFT_RIGHT

MAIN_UNITS = tuple(name for name in ACTION_UNITS if name[2] not in "LR")
SIDE_NODES = ("AU01", "AU02", "AU04", "AU06", "AU10", "AU11", "AU14")
"""The main units whose nodes the seven left/right pairs are read from, in the published order."""
AMBIGUOUS_UNITS = LEFT_RIGHT["AU12"]
"""Outputs of which the published code does not agree with itself whether they are AU12 or AU11."""

Backbone = ResNet | SwinTransformer
BACKBONES: dict[str, tuple[Callable[[], Backbone], int]] = {
    "resnet18": (lambda: ResNet(BasicBlock, (2, 2, 2, 2)), 4),
    "resnet50": (lambda: ResNet(Bottleneck, (3, 4, 6, 3)), 4),
    "resnet101": (lambda: ResNet(Bottleneck, (3, 4, 23, 3)), 4),
    "swin_tiny": (lambda: SwinTransformer(96, (2, 2, 6, 2), (3, 6, 12, 24)), 2),
    "swin_small": (lambda: SwinTransformer(96, (2, 2, 18, 2), (3, 6, 12, 24)), 2),
    "swin_base": (lambda: SwinTransformer(128, (2, 2, 18, 2), (4, 8, 16, 32)), 2),
}
"""How each published backbone is built, and by how much its channels are divided for the nodes."""


class UnitHead(nn.Module):
    """From the face's tokens [B, 49, C] to 41 intensities [B, 41]."""

    def __init__(self, width: int, stage: int) -> None:
        super().__init__()
        count = len(MAIN_UNITS)
        self.main_class_linears = nn.ModuleList(Unit(width, width) for _ in MAIN_UNITS)
        self.edge_extractor = EdgeExtractor(width, count) if stage == 2 else None
        self.gnn = EdgeGraph(width, count) if stage == 2 else NeighbourGraph(width, count)
        self.main_sc = nn.Parameter(torch.randn(count, width))
        self.sub_sc = nn.Parameter(torch.randn(2 * len(SIDE_NODES), width))

    def forward(self, face: Tensor) -> Tensor:
        """Returns the intensities in the order of ACTION_UNITS."""
        units = torch.stack([layer(face) for layer in self.main_class_linears], dim=1)  # [B, 27, 49, C]
        nodes = units.mean(2)
        edges = (self.edge_extractor(units, face),) if self.edge_extractor else ()
        nodes = F.normalize(self.gnn(nodes, *edges), dim=-1)
        sides = nodes[:, [MAIN_UNITS.index(name) for name in SIDE_NODES]].repeat_interleave(2, dim=1)
        return torch.cat([_cosine(nodes, self.main_sc), _cosine(sides, self.sub_sc)], dim=1)


class OpenGraphAU(nn.Module):
    """Action units of aligned faces: images [B, 3, H, W] in [-1, 1] -> intensities [B, 41] in [0, 1].

    Args:
        backbone: a key of BACKBONES.
        stage: 1 or 2, the training stage that the weights come from.

    Raises:
        InputError: an unknown backbone or stage.
    """

    def __init__(self, backbone: str, stage: int) -> None:
        super().__init__()
        build, divisor = BACKBONES[choose(backbone, BACKBONES, "backbone")]
        choose(str(stage), ("1", "2"), "OpenGraphAU stage")
        self.pixels = Pixels(256, crop=(224, 224))
        trunk = build()
        width = trunk.channels // divisor
        self.backbone = trunk
        self.global_linear = Unit(trunk.channels, width)
        self.head = UnitHead(width, stage)

    def forward(self, images: Tensor) -> Tensor:
        """Returns an intensity for every action unit, in the order of ACTION_UNITS."""
        return self.head(self.global_linear(self.backbone(self.pixels(images))))

    @torch.inference_mode()
    def label(self, images: Tensor) -> Tensor:
        """Returns intensities [B, 41] in the order of ACTION_UNITS."""
        return self(images).clamp(0.0, 1.0)


def load_open_graph_au(path: str | Path, device: str = "cpu") -> OpenGraphAU:
    """Loads a published checkpoint (`OpenGprahAU-ResNet50_second_stage.pth`), prints its key report.

    Backbone and stage are read from the key names, whatever the file is called.

    Raises:
        InputError: the file cannot be read safely, or is not one of the published layouts.
    """
    weights = read_checkpoint(path)
    model = OpenGraphAU(*recognise(weights, str(path)))
    print(import_weights(model, weights, str(path)))
    return model.eval().to(device)


def recognise(weights: Mapping[str, Tensor], origin: str) -> tuple[str, int]:
    """Returns the backbone and the stage of a checkpoint, by its keys.

    Raises:
        InputError: it has the keys of neither.
    """
    stage = 2 if any(key.startswith("head.edge_extractor.") for key in weights) else 1
    if "backbone.patch_embed.proj.weight" in weights:
        wide = weights["backbone.patch_embed.proj.weight"].shape[0] == 128
        deep = "backbone.layers.2.blocks.17.norm1.weight" in weights
        return ("swin_base" if wide else "swin_small" if deep else "swin_tiny"), stage
    if "backbone.layer1.0.conv1.weight" in weights:
        bottleneck = "backbone.layer1.0.conv3.weight" in weights
        deep = "backbone.layer3.22.conv1.weight" in weights
        return ("resnet101" if deep else "resnet50" if bottleneck else "resnet18"), stage
    raise InputError(
        f"{origin} is no OpenGraphAU checkpoint: its keys begin with {', '.join(sorted(weights)[:3])}, "
        f"not with backbone. of {', '.join(BACKBONES)}"
    )


def _cosine(nodes: Tensor, directions: Tensor) -> Tensor:
    """Cosine of unit vectors [B, N, C] with the non-negative part of the directions [N, C]."""
    return (nodes * F.normalize(F.relu(directions), dim=-1)).sum(-1)
