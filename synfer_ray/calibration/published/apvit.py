"""APViT (Xue et al. 2022, arXiv 2212.05463), github.com/youqingxiaozhua/APViT, Apache-2.0.

IR-50 to 14 x 14 places, of which the 160 that stand out go through a vision transformer; its last four blocks
each drop the tenth of the places that the class token attends to least. Attention is scaled by the width of a
head, as in the released configuration for RAF-DB; weights older than that configuration scale otherwise.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synfer_ray.calibration.published.ir50 import input_layer, stage
from synfer_ray.calibration.published.pixels import Pixels
from synfer_ray.calibration.published.vit import Block
from synfer_ray.calibration.published.windows import merge_heads

WIDTH, HEADS, PLACES, KEPT = 768, 8, 196, 160
KEEP_RATES = (1.0, 1.0, 1.0, 1.0, 0.9, 0.9, 0.9, 0.9)


class Extractor(nn.Module):
    """IR-50 to its third stage: [B, 3, 112, 112] -> [B, 256, 14, 14]."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layer = input_layer()
        self.body = nn.ModuleList(stage(index) for index in range(3))

    def forward(self, pixels: Tensor) -> Tensor:
        """Returns the features."""
        x = self.input_layer(pixels)
        for part in self.body:
            x = part(x)
        return x


class PoolingBlock(Block):
    """A transformer block after whose attention only the share `keep_rate` of the places goes on."""

    def __init__(self, keep_rate: float) -> None:
        super().__init__(WIDTH, HEADS, mlp_ratio=3, qkv_bias=False)
        self.keep_rate = keep_rate

    def forward(self, x: Tensor) -> Tensor:
        """[B, 1 + N, C] -> [B, 1 + kept, C]; the class token always stays."""
        query, key, value = self.attn.split(self.norm1(x))
        attended = self.attn.proj(merge_heads(F.scaled_dot_product_attention(query, key, value)))
        x = x + attended
        if self.keep_rate < 1:
            looks = (query[:, :, :1] @ key[:, :, 1:].transpose(-1, -2)).sum(1).squeeze(1)  # [B, N]
            places = keep_largest(x[:, 1:], looks, max(int(looks.shape[1] * self.keep_rate), 1))
            x = torch.cat([x[:, :1], places], dim=1)
        return x + self.mlp(self.norm2(x))


class PoolingTransformer(nn.Module):
    """Features [B, 256, 14, 14] -> class token [B, 768]."""

    def __init__(self) -> None:
        super().__init__()
        self.projs = nn.ModuleList([nn.Conv2d(256, WIDTH, 1)])
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.patch_pos_embed = nn.Parameter(torch.zeros(1, PLACES, WIDTH))
        self.cls_pos_embed = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.blocks = nn.ModuleList(PoolingBlock(rate) for rate in KEEP_RATES)
        self.norm = nn.LayerNorm(WIDTH, eps=1e-6)

    def forward(self, features: Tensor) -> Tensor:
        """Returns the class token."""
        projected = self.projs[0](features).flatten(2).transpose(1, 2)
        places = keep_largest(projected + self.patch_pos_embed, projected.abs().sum(-1), KEPT)
        class_token = (self.cls_token + self.cls_pos_embed).expand(len(places), -1, -1)
        x = torch.cat([class_token, places], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)[:, 0]


class Head(nn.Module):
    """The classifier's linear layer."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.fc = nn.Linear(WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 768] -> [B, classes]."""
        return self.fc(x)


class APViT(nn.Module):
    """APViT: faces [B, 3, H, W] in [-1, 1] -> logits [B, classes] in the order of its checkpoint.

    Attributes:
        UNUSED: prefixes of what the published file holds besides: nothing.
        CLASSES_KEY: the bias that tells the number of classes.
    """

    UNUSED = ()
    CLASSES_KEY = "head.fc.bias"

    def __init__(self, classes: int = 7) -> None:
        super().__init__()
        self.pixels = Pixels((112, 112))
        self.extractor = Extractor()
        self.vit = PoolingTransformer()
        self.head = Head(classes)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits."""
        return self.head(self.vit(self.extractor(self.pixels(images))))


def keep_largest(tokens: Tensor, scores: Tensor, count: int) -> Tensor:
    """Returns the tokens [B, count, C] of [B, N, C] with the largest scores [B, N], in their order."""
    kept = scores.topk(count, dim=1).indices.sort(dim=1).values
    return tokens.gather(1, kept[..., None].expand(-1, -1, tokens.shape[-1]))
