"""ViTamin: inverted bottlenecks with layer norms, then a transformer with gated MLPs.

Paper: https://arxiv.org/abs/2404.02132
Code: https://github.com/Beckschen/ViTamin (MIT); names follow timm/models/vitamin.py
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import mlx.core as mx
import mlx.nn as nn

from ..config import FeatureInfo, ModelConfig, Preprocess
from ..cpu import kernels
from ..nn.image_model import ImageModel
from ..nn.layers import GELU, Conv2d
from ..nn.residual import BLOCK, ScaledResidual, window_share
from ..nn.transformer import SelfAttention
from ..registry import ModelSpec, register_model, weights_of

EPS = 1e-6


@dataclass(frozen=True, kw_only=True)
class ViTaminConfig(ModelConfig):
    """``conv_dim`` are the channels of the two stages before the transformer."""

    conv_dim: tuple[int, int]
    embed_dim: int
    depth: int
    heads: int
    img_size: int = 224
    positions: bool = True  # without them, images may have any size
    head_bias: bool = True  # the projection in the file of a CLIP has none

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        return (FeatureInfo(0, self.embed_dim, 16),)

    @property
    def only_size(self) -> int | None:
        return self.img_size if self.positions else None


class MBConv(nn.Module):
    """A layer norm, an inverted bottleneck, and what it is added to."""

    def __init__(self, in_dim: int, dim: int, stride: int) -> None:
        super().__init__()
        self.stride, hidden = stride, 4 * dim
        self.expand = nn.Identity() if in_dim == dim else Conv2d(in_dim, dim, 1)
        self.pre_norm = nn.LayerNorm(in_dim, EPS)
        self.conv1 = Conv2d(in_dim, hidden, 1)
        self.conv2 = Conv2d(hidden, hidden, 3, stride, 1, groups=hidden)
        self.conv3 = Conv2d(hidden, dim, 1)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, in) map to (B, H / stride, W / stride, dim)."""
        y = kernels.gelu(self.conv1(self.pre_norm(x)))
        x = halved(x) if self.stride == 2 else x
        return self.conv3(kernels.gelu(self.conv2(y))) + self.expand(x)


def halved(x: mx.array) -> mx.array:
    """(B, H, W, C) map to (B, H / 2, W / 2, C): means of a position and its neighbours."""
    share = window_share(x.shape[1], x.shape[2], 3)[::2, ::2].astype(x.dtype)
    return nn.AvgPool2d(3, 2, 1)(x) * share


class GatedMlp(nn.Module):
    """A layer norm, then a linear layer whose GELU gates another one, and a third."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, EPS)
        self.w0, self.w1 = nn.Linear(dim, hidden), nn.Linear(dim, hidden)
        self.w2 = nn.Linear(hidden, dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(..., dim) to (..., dim)."""
        x = self.norm(x)
        return self.w2(kernels.gelu(self.w0(x)) * self.w1(x))


class GatedBlock(nn.Module):
    """Two residual branches, as ``Block``, but for the name of the second: ``mlp.norm`` is in
    timm's names the norm inside the gated MLP, in those of ``Block`` the one before it."""

    def __init__(self, mixer: nn.Module, gated: nn.Module) -> None:
        super().__init__()
        self.mixer = mixer
        self.gated = gated

    def __call__(self, x: mx.array) -> mx.array:
        """(B, N, dim) to the same shape."""
        return self.gated(self.mixer(x))


class ViTamin(ImageModel):
    def __init__(self, config: ViTaminConfig) -> None:
        super().__init__()
        self.config = c = config
        stem, last, dim = c.conv_dim[0], c.conv_dim[-1], c.embed_dim
        first, second = Conv2d(3, stem, 3, 2, 1), Conv2d(stem, stem, 3, 1, 1)
        self.stem = [first, nn.LayerNorm(stem, EPS), GELU(), second]
        self.stages = [
            [MBConv(out if j else stem, out, 1 if j else 2) for j in range(depth)]
            for out, depth in ((stem, 2), (last, 4))
        ]
        self.patch_norm, self.patch_proj = nn.LayerNorm(last, EPS), Conv2d(last, dim, 3, 2, 1)
        if c.positions:
            self.pos_embed = mx.zeros((1, (c.img_size // c.stride) ** 2, dim))
        parts = (lambda: SelfAttention(dim, c.heads)), (lambda: GatedMlp(dim, 2 * dim))
        self.blocks = [
            GatedBlock(*(ScaledResidual(m(), dim, nn.LayerNorm(dim, EPS), None) for m in parts))
            for _ in range(c.depth)
        ]
        self.fc_norm = nn.LayerNorm(dim, EPS)
        if c.num_classes:
            self.head = nn.Linear(dim, c.num_classes, bias=c.head_bias)

    def maps(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to one NHWC map, of the transformer."""
        for layer in (*self.stem, *self.stages[0], *self.stages[1]):
            x = layer(x)
        x = self.patch_proj(self.patch_norm(x))
        x, shape = x.flatten(1, 2), x.shape
        x = x + self.pos_embed if "pos_embed" in self else x
        for block in self.blocks:
            x = block(x)
        return [x.reshape(shape)]

    def pool(self, x: mx.array) -> mx.array:
        """(B, H, W, C) map to (B, C), normalized."""
        return self.fc_norm(super().pool(x))


_RENAMES = (
    (r"^patch_embed\.backbone\.", ""),
    (r"^stem\.conv1\.", "stem.0."),
    (r"^stem\.norm1\.", "stem.1."),
    (r"^stem\.conv2\.", "stem.3."),
    (r"\.conv(\d)_(1x1|kxk)\.", r".conv\1."),
    (r"\.shortcut\.", "."),
    (r"^pool\.(norm|proj)\.", r"patch_\1."),
    (r"(blocks\.\d+)\.mlp\.", r"\1.gated.m."),
    (r"(blocks\.\d+)\.norm2\.", r"\1.gated.norm."),
    *BLOCK,
    (r"^head\.proj\.", "head."),
)


_WEIGHTS = """
vitamin_small_224.datacomp1b_clip 224 0.9 classes=384 repo=S
vitamin_small_224.datacomp1b_clip_ltt 224 0.9 classes=768 repo=S-LTT top1=63.4
vitamin_base_224.datacomp1b_clip 224 0.9 classes=768 repo=B
vitamin_base_224.datacomp1b_clip_ltt 224 0.9 classes=768 repo=B-LTT top1=70.8
vitamin_large_224.datacomp1b_clip 224 0.9 classes=768 repo=L-224px top1=80.8
vitamin_large_256.datacomp1b_clip 256 1 classes=768 repo=L-256px top1=81.2
vitamin_large_336.datacomp1b_clip 336 1 classes=768 repo=L-336px top1=81.6
vitamin_large_384.datacomp1b_clip 384 1 classes=768 repo=L-384px top1=81.8
vitamin_large2_224.datacomp1b_clip 224 0.9 classes=1024 repo=L2-224px top1=80.9
vitamin_large2_256.datacomp1b_clip 256 1 classes=1024 repo=L2-256px top1=81.5
vitamin_large2_336.datacomp1b_clip 336 1 classes=1024 repo=L2-336px top1=81.8
vitamin_large2_384.datacomp1b_clip 384 1 classes=1024 repo=L2-384px top1=82.1
vitamin_xlarge_256.datacomp1b_clip 256 1 classes=1152 repo=XL-256px top1=82.3
vitamin_xlarge_336.datacomp1b_clip 336 1 classes=1152 repo=XL-336px top1=82.7
vitamin_xlarge_384.datacomp1b_clip 384 1 classes=1152 repo=XL-384px top1=82.9
""".replace("repo=", "clip file=pytorch_model.bin repo=jienengchen/ViTamin-")
_NOTE = "the image encoder of a CLIP: its scores are coordinates; top-1 is zero-shot"


def _register(config: ViTaminConfig, size: str, millions: float, billions: float = 0) -> None:
    """``size`` as in the name; parameters and multiply-adds as the authors have them."""
    name = f"vitamin_{size}"
    weights = [replace(w, note=_NOTE) for w in weights_of(name, _WEIGHTS, "mit")]
    register_model(
        ModelSpec(
            name=name,
            family="vitamin",
            build=ViTamin,
            config=replace(config, img_size=int(size[-3:]), **weights[0].config),
            preprocess=weights[0].preprocess or Preprocess(),
            checkpoints=tuple(weights),
            key_prefix=r"((module|model)\.)?visual\.(trunk\.|(?=head\.proj\.))",
            fixed_size=config.positions,
            renames=_RENAMES,
            adapt=lambda keys: {"head_bias": "head.bias" in keys or "head.weight" not in keys},
            params=round(millions * 1e6),
            macs=round(billions * 1e9) or None,
        )
    )


_S = ViTaminConfig(conv_dim=(64, 128), embed_dim=384, depth=14, heads=6)
_B = ViTaminConfig(conv_dim=(128, 256), embed_dim=768, depth=14, heads=12)
_L = ViTaminConfig(conv_dim=(160, 320), embed_dim=1024, depth=31, heads=16)
_XL = ViTaminConfig(conv_dim=(192, 384), embed_dim=1152, depth=32, heads=16, positions=False)
_register(_S, "small_224", 22.0)
_register(_B, "base_224", 87.7)
_register(_L, "large_224", 333.3, 72.6)
_register(_L, "large_256", 333.4, 94.8)
_register(_L, "large_336", 333.6, 163.4)
_register(_L, "large_384", 333.7, 213.4)
_register(_L, "large2_224", 333.6, 72.6)
_register(_L, "large2_256", 333.6, 94.8)
_register(_L, "large2_336", 333.8, 163.4)
_register(_L, "large2_384", 334.0, 213.4)
_register(_XL, "xlarge_256", 436.1, 125.3)
_register(_XL, "xlarge_336", 436.1, 215.9)
_register(_XL, "xlarge_384", 436.1, 281.9)
