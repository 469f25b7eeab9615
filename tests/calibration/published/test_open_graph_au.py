import numpy as np
import pytest
import torch
from torch import nn

from synfer_ray.calibration.published.open_graph_au import (
    AMBIGUOUS_UNITS,
    BACKBONES,
    MAIN_UNITS,
    OpenGraphAU,
    UnitHead,
    load_open_graph_au,
    recognise,
)
from synfer_ray.calibration.published.relation_graph import EdgeExtractor, EdgeGraph, NeighbourGraph
from synfer_ray.errors import InputError
from synfer_ray.storage.foreign import import_weights
from synfer_ray.taxonomy.action_units import ACTION_UNITS
from tests.calibration.published.layouts import face_like, open_graph_au, random_weights, save_pickle

NODES, PLACES, WIDTH = 5, 4, 6


def layout_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in model.state_dict().items()}


@pytest.mark.parametrize("stage", [1, 2])
@pytest.mark.parametrize("backbone", list(BACKBONES))
def test_every_released_layout_fits_key_for_key(backbone, stage):
    released = open_graph_au(backbone, stage)
    with torch.device("meta"):
        assert layout_of(OpenGraphAU(backbone, stage)) == released
        shapes = {key: torch.empty(shape) for key, shape in released.items()}
    assert recognise(shapes, "x") == (backbone, stage)


# Of the second picture, as the authors' code computes them from the same weights.
SHOWN = ("AU01", "AU12", "AU24", "AU39", "AUL01", "AUL12", "AUR12", "AUR14")
AUTHORS = {
    ("resnet18", 1): [0.37804, 0.36266, 0.37082, 0.23487, 0.36016, 0.33434, 0.50421, 0.44694],
    ("resnet18", 2): [0.43618, 0.44118, 0.44123, 0.56554, 0.37361, 0.42335, 0.48094, 0.41416],
    ("resnet50", 2): [0.49068, 0.43372, 0.43877, 0.45391, 0.46539, 0.47927, 0.46967, 0.47838],
    ("swin_tiny", 1): [0.47508, 0.35617, 0.33234, 0.30742, 0.39017, 0.40567, 0.35236, 0.26994],
    ("swin_tiny", 2): [0.40919, 0.48377, 0.50704, 0.40164, 0.40479, 0.47517, 0.43230, 0.44822],
}


@pytest.mark.parametrize(("backbone", "stage"), list(AUTHORS))
def test_intensities_are_those_of_the_authors_code(backbone, stage):
    model = OpenGraphAU(backbone, stage).eval()
    import_weights(model, random_weights(open_graph_au(backbone, stage)), "random")
    found = model.label(face_like(2))
    assert found.shape == (2, 41) and (found >= 0).all() and (found <= 1).all()
    shown = [found[1, ACTION_UNITS.index(name)].item() for name in SHOWN]
    assert shown == pytest.approx(AUTHORS[backbone, stage], abs=2e-5)


def test_a_released_file_is_recognised_loaded_and_reported(tmp_path, capsys):
    weights = random_weights(open_graph_au("resnet18", 2))
    path = save_pickle(tmp_path / "OpenGprahAU.pth", weights, epoch=20, optimizer={"lr": 1e-5, "state": {}})
    model = load_open_graph_au(path)
    assert capsys.readouterr().out == f"{path}: loaded 367 tensors, missing 0, unexpected 0, not needed 0\n"
    assert not model.training
    assert all(torch.equal(value, weights[key]) for key, value in model.state_dict().items())


def test_damaged_and_foreign_files_are_refused_with_the_first_differing_keys(tmp_path):
    weights = random_weights(open_graph_au("resnet18", 1))
    changes = {
        "missing: head.gnn.U.bias, head.main_sc": {"head.main_sc": None, "head.gnn.U.bias": None},
        "unexpected: backbone.fc.bias": {"backbone.fc.bias": torch.zeros(1000)},
        r"wrong shape: head.sub_sc \(12, 128\) instead of \(14, 128\)": {"head.sub_sc": torch.zeros(12, 128)},
        "not finite: backbone.conv1.weight": {"backbone.conv1.weight": torch.full((64, 3, 7, 7), torch.nan)},
        "is no OpenGraphAU checkpoint: its keys begin with body": {
            **dict.fromkeys(weights),
            "body": torch.ones(1),
        },
    }
    for message, change in changes.items():
        changed = {key: value for key, value in (weights | change).items() if value is not None}
        with pytest.raises(InputError, match=message):
            load_open_graph_au(save_pickle(tmp_path / "m.pth", changed))


def test_unknown_backbones_and_stages_are_named():
    with pytest.raises(InputError, match=r"resnet34.*did you mean 'resnet"):
        OpenGraphAU("resnet34", 1)
    with pytest.raises(InputError, match="choices: 1, 2"):
        OpenGraphAU("resnet18", 3)


def test_the_pair_called_au12_is_read_from_the_node_of_au11():
    """The published mapping, kept for its weights: `AMBIGUOUS_UNITS` says so."""
    assert AMBIGUOUS_UNITS == ("AUL12", "AUR12")
    torch.manual_seed(0)
    head = UnitHead(8, stage=1).eval()
    head.gnn = nn.Identity()  # nodes no longer see each other
    face = torch.rand(1, 49, 8)
    before = head(face)[0]
    for unit, moved in (("AU11", {"AU11", "AUL12", "AUR12"}), ("AU12", {"AU12"})):
        layer = head.main_class_linears[MAIN_UNITS.index(unit)].fc
        kept = layer.weight.data.clone()
        layer.weight.data = torch.randn_like(kept)
        changed = ~torch.isclose(head(face)[0], before, atol=1e-6)
        assert {name for name, is_moved in zip(ACTION_UNITS, changed) if is_moved} <= moved
        assert changed[ACTION_UNITS.index(unit)]
        assert changed[ACTION_UNITS.index("AUL12")] == (unit == "AU11")
        layer.weight.data = kept


# The graph layers once more, in NumPy and in the order of the paper's equations.


def arrays(module: nn.Module, seed: int) -> dict[str, np.ndarray]:
    """Gives a module random weights and statistics, and returns them in double precision."""
    generator = torch.Generator().manual_seed(seed)
    for key, value in module.state_dict().items():
        if value.is_floating_point():
            value.copy_(torch.randn(value.shape, generator=generator) * 0.4)
            if key.endswith("running_var"):
                value.copy_(value.abs() + 0.5)
    module.eval()
    return {key: value.double().numpy() for key, value in module.state_dict().items()}


def affine(w, name, x):
    return x @ w[f"{name}.weight"].T + w.get(f"{name}.bias", 0.0)


def normalised(w, name, x, index):
    spread = np.sqrt(w[f"{name}.running_var"][index] + 1e-5)
    return (x - w[f"{name}.running_mean"][index]) / spread * w[f"{name}.weight"][index] + w[f"{name}.bias"][
        index
    ]


def softmax(x, axis):
    e = np.exp(x - x.max(axis=axis, keepdims=True))
    return e / e.sum(axis=axis, keepdims=True)


def relu(x):
    return np.maximum(x, 0)


def inputs(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(5))


def test_neighbour_graph_against_numpy():
    module = NeighbourGraph(WIDTH, NODES)
    w, nodes = arrays(module, 1), inputs(2, NODES, WIDTH)
    expected = []
    for x in nodes.double().numpy():
        joined = np.zeros((NODES, NODES))
        for i in range(NODES):
            nearest = sorted(range(NODES), key=lambda j: -(x[i] @ x[j]))[:4]
            joined[i, nearest] = 1
        degree = np.diag(joined.sum(1) ** -0.5)
        mixed = degree @ joined @ degree @ affine(w, "V", x) + affine(w, "U", x)
        expected.append([relu(x[i] + normalised(w, "bnv", mixed[i], i)) for i in range(NODES)])
    np.testing.assert_allclose(module(nodes).detach().numpy(), expected, atol=1e-5)


def test_edge_extractor_against_numpy():
    """Every edge by itself, batch norm before the mean over places, as published."""
    module = EdgeExtractor(WIDTH, NODES)
    w = arrays(module, 2)
    units, face = inputs(2, NODES, PLACES, WIDTH), inputs(2, PLACES, WIDTH)

    def attend(part, asks, answers):
        query, key = affine(w, f"{part}.linear_q", asks), affine(w, f"{part}.linear_k", answers)
        return softmax(query @ key.T / np.sqrt(WIDTH // 2), -1) @ affine(w, f"{part}.linear_v", answers)

    expected = []
    for unit, whole in zip(units.double().numpy(), face.double().numpy()):
        seen = [attend("FAM", unit[i], whole) for i in range(NODES)]
        edges = []
        for end in range(NODES):
            for start in range(NODES):
                edge = affine(w, "edge_proj", attend("ARM", seen[start], seen[end]))
                edges.append(normalised(w, "bn", edge, len(edges)).mean(0))
        expected.append(edges)
    np.testing.assert_allclose(module(units, face).detach().numpy(), expected, atol=1e-5)


def test_edge_graph_against_numpy():
    module = EdgeGraph(WIDTH, NODES)
    w, nodes, edges = arrays(module, 3), inputs(2, NODES, WIDTH), inputs(2, NODES * NODES, WIDTH)
    expected = []
    for x, e in zip(nodes.double().numpy(), edges.double().numpy()):
        for layer in range(2):
            at = f"graph_layers.{layer}."
            updated = np.empty_like(e)
            for edge in range(NODES * NODES):
                end, start = divmod(edge, NODES)
                mixed = (
                    affine(w, at + "A", x[end]) + affine(w, at + "B", x[start]) + affine(w, at + "E", e[edge])
                )
                updated[edge] = e[edge] + relu(normalised(w, at + "bne", mixed, edge))
            e, grown = updated, np.empty_like(x)
            for i in range(NODES):
                gates = softmax(1 / (1 + np.exp(-e[i * NODES : (i + 1) * NODES])), axis=0)
                gathered = (gates * affine(w, at + "V", x)).sum(0) / NODES
                mixed = affine(w, at + "U", x[i]) + gathered
                grown[i] = x[i] + relu(normalised(w, at + "bnv", mixed, i))
            x = grown
        expected.append(x)
    np.testing.assert_allclose(module(nodes, edges).detach().numpy(), expected, atol=1e-5)
