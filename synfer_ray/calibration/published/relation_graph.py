"""The graphs over action units of OpenGraphAU (Luo et al. 2022, sections 3.1 and 3.2).

Written for inference: batch norm with its running statistics is a scale and a shift per node or edge, so the
mean over the 49 places is taken before it rather than after, which changes nothing and saves nine tenths.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NEIGHBOURS = 4


class Unit(nn.Module):
    """Linear layer, batch norm over channels and ReLU: tokens [B, N, inputs] -> [B, N, outputs]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.fc = nn.Linear(inputs, outputs)
        self.bn = nn.BatchNorm1d(outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        """Applies the three."""
        return F.relu(self.bn(self.fc(tokens).transpose(1, 2)).transpose(1, 2))


class NeighbourGraph(nn.Module):
    """Stage 1: `x + relu(bn(A V x + U x))`, where A joins each node to those most like it.

    A node's neighbours are the four with the largest dot product (more if they tie, itself among them); A is
    normalised by the degrees on both sides.
    """

    def __init__(self, width: int, nodes: int) -> None:
        super().__init__()
        self.U = nn.Linear(width, width)
        self.V = nn.Linear(width, width)
        self.bnv = nn.BatchNorm1d(nodes)

    def forward(self, nodes: Tensor) -> Tensor:
        """Nodes [B, N, C] -> [B, N, C]."""
        alike = nodes @ nodes.transpose(1, 2)
        joined = (alike >= alike.topk(NEIGHBOURS, dim=-1).values[..., -1:]).to(nodes.dtype)
        scale = joined.sum(-1).rsqrt()
        adjacency = scale[:, :, None] * joined * scale[:, None, :]
        return F.relu(nodes + self.bnv(adjacency @ self.V(nodes) + self.U(nodes)))


class CrossAttention(nn.Module):
    """The projections of a single-head attention with keys of half the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear_q = nn.Linear(width, width // 2)
        self.linear_k = nn.Linear(width, width // 2)
        self.linear_v = nn.Linear(width, width)
        self.scale = (width // 2) ** -0.5


class EdgeExtractor(nn.Module):
    """Stage 2: a feature for every ordered pair of units, from what each sees in the face.

    Each unit first attends to the whole face (FAM); then, for the edge between i and j, unit j attends to
    unit i (ARM).
    """

    def __init__(self, width: int, nodes: int) -> None:
        super().__init__()
        self.FAM = CrossAttention(width)
        self.ARM = CrossAttention(width)
        self.edge_proj = nn.Linear(width, width)
        self.bn = nn.BatchNorm2d(nodes * nodes)

    def forward(self, units: Tensor, face: Tensor) -> Tensor:
        """Units [B, N, P, C] and the face's tokens [B, P, C] -> edges [B, N * N, C], i * N + j for (i, j)."""
        seen = F.scaled_dot_product_attention(
            self.FAM.linear_q(units), self.FAM.linear_k(face)[:, None], self.FAM.linear_v(face)[:, None]
        )
        query, key, value = self.ARM.linear_q(seen), self.ARM.linear_k(seen), self.ARM.linear_v(seen)
        scores = torch.einsum("bjqc,bikc->bijqk", query, key) * self.ARM.scale
        looks = scores.softmax(-1).mean(-2)  # [B, i, j, P]: where j looks at i, averaged over j's places
        edges = self.edge_proj(torch.einsum("bijk,bikc->bijc", looks, value)).flatten(1, 2)
        return self.bn(edges[:, :, None]).squeeze(2)


class GatedLayer(nn.Module):
    """One gated graph convolution: edges learn from their two nodes, nodes from their gated neighbours."""

    def __init__(self, width: int, nodes: int) -> None:
        super().__init__()
        self.U = nn.Linear(width, width, bias=False)
        self.V = nn.Linear(width, width, bias=False)
        self.A = nn.Linear(width, width, bias=False)
        self.B = nn.Linear(width, width, bias=False)
        self.E = nn.Linear(width, width, bias=False)
        self.bnv = nn.BatchNorm1d(nodes)
        self.bne = nn.BatchNorm1d(nodes * nodes)

    def forward(self, nodes: Tensor, edges: Tensor) -> tuple[Tensor, Tensor]:
        """Nodes [B, N, C] and edges [B, N * N, C] -> the same shapes."""
        count = nodes.shape[1]
        ends = (self.A(nodes)[:, :, None] + self.B(nodes)[:, None]).flatten(1, 2)
        edges = edges + F.relu(self.bne(ends + self.E(edges)))
        gates = edges.sigmoid().unflatten(1, (count, count)).softmax(dim=2)
        gathered = torch.einsum("bijc,bjc->bic", gates, self.V(nodes)) / count
        return nodes + F.relu(self.bnv(self.U(nodes) + gathered)), edges


class EdgeGraph(nn.Module):
    """Stage 2: two gated layers over nodes and edges."""

    def __init__(self, width: int, nodes: int) -> None:
        super().__init__()
        self.graph_layers = nn.ModuleList(GatedLayer(width, nodes) for _ in range(2))

    def forward(self, nodes: Tensor, edges: Tensor) -> Tensor:
        """Nodes [B, N, C] and edges [B, N * N, C] -> nodes [B, N, C]."""
        for layer in self.graph_layers:
            nodes, edges = layer(nodes, edges)
        return nodes
