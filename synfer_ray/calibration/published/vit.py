"""A block of a vision transformer (Dosovitskiy et al. 2021), with timm's key names."""

import torch.nn.functional as F
from torch import Tensor, nn

from synfer_ray.calibration.published.windows import Mlp, merge_heads, split_heads


class Attention(nn.Module):
    """Multi-head self-attention: [B, N, C] -> [B, N, C]."""

    def __init__(self, width: int, heads: int, qkv_bias: bool) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width, bias=qkv_bias)
        self.proj = nn.Linear(width, width)

    def split(self, x: Tensor) -> list[Tensor]:
        """Returns query, key and value, each [B, heads, N, C / heads]."""
        return [split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1)]

    def forward(self, x: Tensor) -> Tensor:
        """Applies the attention."""
        query, key, value = self.split(x)
        return self.proj(merge_heads(F.scaled_dot_product_attention(query, key, value)))


class Block(nn.Module):
    """Attention and MLP, each on the normalised tokens and with a skip: [B, N, C] -> [B, N, C]."""

    def __init__(self, width: int, heads: int, mlp_ratio: int, qkv_bias: bool) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads, qkv_bias)
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = Mlp(width, mlp_ratio * width)

    def forward(self, x: Tensor) -> Tensor:
        """Applies the block."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))
