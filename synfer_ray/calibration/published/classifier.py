"""Published expression classifiers behind one face: whatever their classes, logits by name in our order."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from synfer_ray.calibration.published.ada_df import AdaDF
from synfer_ray.calibration.published.apvit import APViT
from synfer_ray.calibration.published.poster_v2 import PosterV2
from synfer_ray.errors import InputError
from synfer_ray.storage.foreign import import_weights, read_checkpoint
from synfer_ray.taxonomy.expressions import EXPRESSIONS, LABEL_ORDERS, resolve_label_order

PUBLISHED: dict[str, type[PosterV2] | type[APViT] | type[AdaDF]] = {
    "poster_v2": PosterV2,
    "apvit": APViT,
    "ada_df": AdaDF,
}
KNOWN_ORDERS = {
    ("poster_v2", 8): LABEL_ORDERS["affectnet8"],
    ("apvit", 7): LABEL_ORDERS["apvit"],
    ("apvit", 8): (*LABEL_ORDERS["apvit"], "contempt"),
}
"""Class orders that follow from the kind and the number of classes; others differ by training set."""


class NamedClassifier(nn.Module):
    """A network and the names of its classes: images [B, 3, H, W] in [-1, 1] -> logits [B, 7] of EXPRESSIONS.

    Other classes are left out: what remains are the logits given that the face shows one of the seven.

    Args:
        network: from images in [-1, 1] to logits [B, classes].
        label_order: what `resolve_label_order` takes.
    """

    columns: Tensor

    def __init__(self, network: nn.Module, label_order: str | Sequence[str]) -> None:
        super().__init__()
        self.network = network
        names = resolve_label_order(label_order)
        columns = torch.tensor([names.index(name) for name in EXPRESSIONS])
        self.register_buffer("columns", columns, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits in the order of EXPRESSIONS."""
        return self.network(images)[:, self.columns]


def load_published(kind: str, path: str, label_order: str = "") -> NamedClassifier:
    """Loads a released checkpoint, prints its key report and names its classes.

    Args:
        kind: a key of PUBLISHED.
        label_order: class names with commas or a known order; may be empty where the kind settles it.

    Raises:
        InputError: the file cannot be read safely, does not fit the architecture, or its classes are unknown.
    """
    architecture = PUBLISHED[kind]
    weights = read_checkpoint(path)
    order = settle_order(
        kind, path, _count_classes(weights, architecture.CLASSES_KEY, path, kind), label_order
    )
    network = architecture(len(order))
    print(import_weights(network, weights, path, architecture.UNUSED))
    return NamedClassifier(network, order).eval()


def settle_order(kind: str, path: str, classes: int, label_order: str | Sequence[str]) -> tuple[str, ...]:
    """Returns the names of a model's classes.

    Raises:
        InputError: they are unknown, or not as many as the model has.
    """
    label_order = label_order or KNOWN_ORDERS.get((kind, classes), "")
    if not label_order:
        raise InputError(
            f"{path} has {classes} classes, whose order the file does not say: set label_order; "
            "affectnet7 for a model of AffectNet, rafdb for one of RAF-DB, or the names with commas"
        )
    if isinstance(label_order, str) and "," in label_order:
        label_order = label_order.split(",")
    names = resolve_label_order(label_order)
    if len(names) != classes:
        raise InputError(f"{path} has {classes} classes; label_order names {len(names)}: {', '.join(names)}")
    return names


def _count_classes(weights: Mapping[str, Tensor], key: str, path: str, kind: str) -> int:
    if key not in weights:
        first = ", ".join(sorted(weights)[:5])
        raise InputError(f"{path} is no {kind} checkpoint: it lacks {key} and begins with {first}")
    return weights[key].numel()
