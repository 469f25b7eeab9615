"""POSTER++ (Mao et al. 2023, arXiv 2301.12149), github.com/Talented-Q/POSTER_V2, MIT.

An IR-50 reads the image and a frozen MobileFaceNet the landmarks, both at 112 pixels. At 28, 14 and 7 places
the landmark features ask, the image features answer (cross-attention in one window); a small vision
transformer reads the answers of the three resolutions together.

The class order of an AffectNet file is AffectNet's; that of the RAF-DB file follows the sorted folder names
of its training set, which are most likely RAF-DB's labels 1 to 7.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from synfer_ray.calibration.published.ir50 import input_layer, stage
from synfer_ray.calibration.published.mobilefacenet import MobileFaceNet
from synfer_ray.calibration.published.pixels import Pixels
from synfer_ray.calibration.published.vit import Block
from synfer_ray.calibration.published.windows import Mlp, RelativeBias, merge_heads, split_heads

WIDTHS, WINDOWS, HEADS = (64, 128, 256), (28, 14, 7), (2, 4, 8)
TOKEN_WIDTH = 768


class ImageTrunk(nn.Module):
    """IR-50: [B, 3, 112, 112] -> 64 channels at 56, 128 at 28 and 256 at 14 places."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layer = input_layer()
        self.body1, self.body2, self.body3 = stage(0), stage(1), stage(2)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Returns the features of the three stages."""
        fine = self.body1(self.input_layer(pixels))
        middle = self.body2(fine)
        return fine, middle, self.body3(middle)


class Window(nn.Module):
    """The norm before the attention; one window covers the whole grid."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)

    def forward(self, grid: Tensor) -> Tensor:
        """[B, C, side, side] -> normalised tokens [B, side^2, C]."""
        return self.norm(grid.flatten(2).transpose(1, 2))


class LandmarkAttention(RelativeBias):
    """Landmark features are the queries, image features the keys and values."""

    def __init__(self, width: int, window: int, heads: int) -> None:
        super().__init__(window, heads)
        self.heads = heads
        self.qkv = nn.Linear(width, 2 * width)  # the published name; it has no query
        self.proj = nn.Linear(width, width)

    def forward(self, image: Tensor, landmarks: Tensor) -> Tensor:
        """Image tokens [B, N, C] and landmark features [B, C, side, side] -> [B, N, C]."""
        query = split_heads(landmarks.flatten(2).transpose(1, 2), self.heads)
        key, value = (split_heads(part, self.heads) for part in self.qkv(image).chunk(2, dim=-1))
        return self.proj(merge_heads(F.scaled_dot_product_attention(query, key, value, self.bias())))


class FeedForward(nn.Module):
    """Adds the attended tokens and an MLP to the normalised image tokens, each scaled by channel."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gamma1 = nn.Parameter(1e-5 * torch.ones(width))
        self.gamma2 = nn.Parameter(1e-5 * torch.ones(width))
        self.mlp = Mlp(width, 4 * width)
        self.norm = nn.LayerNorm(width)

    def forward(self, attended: Tensor, image: Tensor) -> Tensor:
        """Tokens [B, N, C] -> [B, N, C]."""
        x = image + self.gamma1 * attended
        return x + self.gamma2 * self.mlp(self.norm(x))


class PatchEmbed(nn.Module):
    """A 1x1 convolution to the transformer's width."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Conv2d(WIDTHS[2], TOKEN_WIDTH, 1)

    def forward(self, grid: Tensor) -> Tensor:
        """[B, 256, 7, 7] -> [B, 768, 7, 7]."""
        return self.proj(grid)


class Excitation(nn.Module):
    """Weighs the channels of the class token by a gate of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.linear1 = nn.Linear(TOKEN_WIDTH, TOKEN_WIDTH)
        self.linear2 = nn.Linear(TOKEN_WIDTH, TOKEN_WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 768] -> [B, 768]."""
        return x * self.linear2(F.relu(self.linear1(x))).sigmoid()


class Head(nn.Module):
    """The classifier's linear layer."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(TOKEN_WIDTH, classes)

    def forward(self, x: Tensor) -> Tensor:
        """[B, 768] -> [B, classes]."""
        return self.linear(x)


class Transformer(nn.Module):
    """Two blocks over a class token and three times 49 tokens: [B, 147, 768] -> logits [B, classes]."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, TOKEN_WIDTH))
        self.pos_embed = nn.Parameter(torch.zeros(1, 3 * WINDOWS[2] ** 2 + 1, TOKEN_WIDTH))
        self.blocks = nn.Sequential(*(Block(TOKEN_WIDTH, 8, mlp_ratio=4, qkv_bias=True) for _ in range(2)))
        self.norm = nn.LayerNorm(TOKEN_WIDTH, eps=1e-6)
        self.se_block = Excitation()
        self.head = Head(classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns the logits."""
        x = torch.cat([self.cls_token.expand(len(tokens), -1, -1), tokens], dim=1) + self.pos_embed
        return self.head(self.se_block(self.norm(self.blocks(x))[:, 0]))


class PosterV2(nn.Module):
    """POSTER++: faces [B, 3, H, W] in [-1, 1] -> logits [B, classes] in the order of its checkpoint.

    Attributes:
        UNUSED: prefixes of what the published files hold besides, and the forward pass never reads.
        CLASSES_KEY: the bias that tells the number of classes.
    """

    UNUSED = (
        "face_landback.output_layer.",
        "ir_back.output_layer.",
        "VIT.patch_embed.",
        "VIT.eca_block.",
        "VIT.CON1.",
        "VIT.IRLinear1.",
        "VIT.IRLinear2.",
        "VIT.blocks.0.conv.",
        "VIT.blocks.1.conv.",
    )
    CLASSES_KEY = "VIT.head.linear.bias"

    def __init__(self, classes: int = 7) -> None:
        super().__init__()
        self.pixels = Pixels((224, 224))
        self.face_landback = MobileFaceNet()
        self.ir_back = ImageTrunk()
        for index, (width, window, heads) in enumerate(zip(WIDTHS, WINDOWS, HEADS), start=1):
            self.add_module(f"conv{index}", nn.Conv2d(width, width, 3, stride=2, padding=1))
            self.add_module(f"window{index}", Window(width))
            self.add_module(f"attn{index}", LandmarkAttention(width, window, heads))
            self.add_module(f"ffn{index}", FeedForward(width))
        self.last_face_conv = nn.Conv2d(512, WIDTHS[2], 3, padding=1)
        self.embed_q = nn.Sequential(
            nn.Conv2d(WIDTHS[0], TOKEN_WIDTH, 3, stride=2, padding=1),
            nn.Conv2d(TOKEN_WIDTH, TOKEN_WIDTH, 3, stride=2, padding=1),
        )
        self.embed_k = nn.Sequential(nn.Conv2d(WIDTHS[1], TOKEN_WIDTH, 3, stride=2, padding=1))
        self.embed_v = PatchEmbed()
        self.VIT = Transformer(classes)

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits."""
        pixels = F.interpolate(self.pixels(images), size=112)  # to the nearest pixel, as in training
        fine, middle, coarse = self.face_landback(pixels)
        landmarks = (fine, middle, self.last_face_conv(coarse))
        embeddings = (self.embed_q, self.embed_k, self.embed_v)
        tokens = []
        for index, features in enumerate(self.ir_back(pixels)):
            answer = self._fuse(index + 1, features, landmarks[index])
            tokens.append(embeddings[index](answer).flatten(2).transpose(1, 2))
        return self.VIT(torch.cat(tokens, dim=1))

    def _fuse(self, index: int, features: Tensor, landmarks: Tensor) -> Tensor:
        """Features [B, C, 2 side, 2 side] and landmark features [B, C, side, side] -> the latter's shape."""
        shrink, window, attend, combine = (
            self.get_submodule(f"{part}{index}") for part in ("conv", "window", "attn", "ffn")
        )
        image = window(shrink(features))
        return combine(attend(image, landmarks), image).transpose(1, 2).reshape(landmarks.shape)
