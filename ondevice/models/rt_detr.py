"""RT-DETR and RT-DETRv2: objects in an image, without suppression of overlapping boxes.

Papers: https://arxiv.org/abs/2304.08069 (RT-DETR), https://arxiv.org/abs/2407.17140 (v2)
Code: https://github.com/lyuwenyu/RT-DETR (Apache-2.0); names follow transformers
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..config import FeatureInfo, ModelConfig, Preprocess
from ..config.labels import COCO
from ..cpu import kernels
from ..nn.deformable import (
    BoxHead,
    DeformableAttention,
    anchors,
    best,
    inverse_sigmoid,
    rows,
    sine_positions,
)
from ..nn.detection import Detector
from ..nn.layers import ConvNorm
from ..nn.qkv_attention import Attention
from ..nn.reparam import sum_convs
from ..nn.resnet_d import ResNetD
from ..registry import Checkpoint, ModelSpec, Shapes, register_model

LEVELS, POINTS = 3, 4


@dataclass(frozen=True, kw_only=True)
class RTDetrConfig(ModelConfig):
    num_classes: int = 80
    dims: tuple[int, ...]  # of the backbone's stages
    depths: tuple[int, ...]
    bottleneck: bool = True
    encoder_dim: int = 256
    encoder_ffn: int = 1024
    expansion: float = 1.0  # of the encoder's blocks
    decoder_dim: int = 256
    decoder_ffn: int = 1024
    decoder_depth: int = 6
    heads: int = 8
    queries: int = 300
    own_scale: bool = False  # of the places that a query looks at, as version 2 has it

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        return tuple(FeatureInfo(i, c, 2 ** (i + 3)) for i, c in enumerate(self.dims[1:]))

    @property
    def stride(self) -> int:
        return 32


class Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int, act: str) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)
        self.act = act

    def __call__(self, x: mx.array) -> mx.array:
        """(..., dim) to the same shape."""
        act = {"gelu": kernels.gelu, "relu": kernels.relu}[self.act]
        return self.fc2(act(self.fc1(x)))


class EncoderLayer(nn.Module):
    """Attention of a map to itself, each part with a residual around and a norm behind."""

    def __init__(self, dim: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.self_attn = Attention(dim, heads)
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, hidden, "gelu")
        self.final_layer_norm = nn.LayerNorm(dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, dim) map to the same shape."""
        B, H, W, C = x.shape
        x = x.reshape(B, H * W, C)
        placed = x + sine_positions(H, W, C)
        x = self.self_attn_layer_norm(x + self.self_attn(placed, placed, x))
        return self.final_layer_norm(x + self.mlp(x)).reshape(B, H, W, C)


class RepVgg(nn.Module):
    """A 3x3 and a 1x1 convolution beside each other: one 3x3 convolution once fused."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1: nn.Module = ConvNorm(dim, dim, 3)
        self.conv2 = ConvNorm(dim, dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, dim) map to the same shape."""
        y = self.conv1(x) + self.conv2(x) if "conv2" in self else self.conv1(x)
        return nn.silu(y)

    def fuse(self) -> nn.Module:
        """With one convolution."""
        fused = copy.copy(self)
        if "conv2" in self:
            fused.conv1 = sum_convs(self.conv1, fused.pop("conv2"))
        return fused


class CSPBlock(nn.Module):
    """Two maps at once, half of what they become through three convolutions."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = ConvNorm(2 * dim, hidden), ConvNorm(2 * dim, hidden)
        self.bottlenecks = [RepVgg(hidden) for _ in range(3)]
        if hidden != dim:
            self.conv3 = ConvNorm(hidden, dim)

    def __call__(self, x: mx.array, y: mx.array) -> mx.array:
        """Two (B, H, W, dim) maps to one."""
        both = mx.concatenate([x, y], axis=-1)
        deep, flat = nn.silu(self.conv1(both)), nn.silu(self.conv2(both))
        for block in self.bottlenecks:
            deep = block(deep)
        return nn.silu(self.conv3(deep + flat)) if "conv3" in self else deep + flat


class HybridEncoder(nn.Module):
    """Attention within the smallest map, then convolutions across all, down and up."""

    def __init__(self, config: RTDetrConfig) -> None:
        super().__init__()
        dim, steps = config.encoder_dim, LEVELS - 1
        hidden = int(dim * config.expansion)
        self.aifi = [{"layers": [EncoderLayer(dim, config.heads, config.encoder_ffn)]}]
        self.lateral_convs = [ConvNorm(dim, dim) for _ in range(steps)]
        self.fpn_blocks = [CSPBlock(dim, hidden) for _ in range(steps)]
        self.downsample_convs = [ConvNorm(dim, dim, 3, 2) for _ in range(steps)]
        self.pan_blocks = [CSPBlock(dim, hidden) for _ in range(steps)]
        self.double = nn.Upsample(2)

    def __call__(self, maps: list[mx.array]) -> list[mx.array]:
        """NHWC maps from fine to coarse, each in the same channels, to the same shapes."""
        (layer,) = self.aifi[0]["layers"]
        *finer, coarse = maps
        found = [layer(coarse)]
        for lateral, block, x in zip(
            self.lateral_convs, self.fpn_blocks, finer[::-1], strict=True
        ):
            found[0] = nn.silu(lateral(found[0]))
            found.insert(0, block(self.double(found[0]), x))
        out = found[:1]
        for down, block, x in zip(
            self.downsample_convs, self.pan_blocks, found[1:], strict=True
        ):
            out.append(block(nn.silu(down(out[-1])), x))
        return out


class DecoderLayer(nn.Module):
    """Queries look at each other, then at places around their boxes."""

    def __init__(self, config: RTDetrConfig) -> None:
        super().__init__()
        dim = config.decoder_dim
        self.self_attn = Attention(dim, config.heads)
        self.self_attn_layer_norm = nn.LayerNorm(dim)
        self.encoder_attn = DeformableAttention(
            dim, config.heads, LEVELS, POINTS, own_scale=config.own_scale
        )
        self.encoder_attn_layer_norm = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, config.decoder_ffn, "relu")
        self.final_layer_norm = nn.LayerNorm(dim)

    def __call__(
        self, x: mx.array, positions: mx.array, boxes: mx.array, maps: list[mx.array]
    ) -> mx.array:
        """(B, Q, dim) queries with their positions and (B, Q, 4) boxes to the same shape."""
        placed = x + positions
        x = self.self_attn_layer_norm(x + self.self_attn(placed, placed, x))
        x = self.encoder_attn_layer_norm(x + self.encoder_attn(x + positions, boxes, maps))
        return self.final_layer_norm(x + self.mlp(x))


class Decoder(nn.Module):
    def __init__(self, config: RTDetrConfig) -> None:
        super().__init__()
        dim, depth = config.decoder_dim, config.decoder_depth
        self.layers = [DecoderLayer(config) for _ in range(depth)]
        self.query_pos_head = BoxHead((4, 2 * dim, dim))
        self.bbox_embed = [BoxHead((dim, dim, dim, 4)) for _ in range(depth)]
        self.class_embed = [nn.Linear(dim, config.num_classes) for _ in range(depth)]

    def __call__(
        self, x: mx.array, boxes: mx.array, maps: list[mx.array]
    ) -> tuple[mx.array, mx.array]:
        """(B, Q, dim) queries and their boxes to (B, Q, classes) logits and better boxes."""
        for layer, head in zip(self.layers, self.bbox_embed, strict=True):
            x = layer(x, self.query_pos_head(boxes), boxes, maps)
            boxes = mx.sigmoid(head(x) + inverse_sigmoid(boxes))
        return self.class_embed[-1](x), boxes


class RTDetr(Detector):
    def __init__(self, config: RTDetrConfig) -> None:
        super().__init__()
        c, dim = config, config.decoder_dim
        self.config = c
        self.backbone = ResNetD(c.dims, c.depths, bottleneck=c.bottleneck)
        self.encoder_input_proj = [ConvNorm(n, c.encoder_dim) for n in c.dims[1:]]
        self.encoder = HybridEncoder(c)
        self.decoder_input_proj = [ConvNorm(c.encoder_dim, dim) for _ in range(LEVELS)]
        self.enc_output = [nn.Linear(dim, dim), nn.LayerNorm(dim)]
        self.enc_score_head = nn.Linear(dim, c.num_classes)
        self.enc_bbox_head = BoxHead((dim, dim, dim, 4))
        self.decoder = Decoder(c)

    def memory(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to the three (B, h, w, dim) maps that queries look at."""
        layers = zip(self.encoder_input_proj, self.backbone(x), strict=True)
        maps = self.encoder([project(y) for project, y in layers])
        return [f(y) for f, y in zip(self.decoder_input_proj, maps, strict=True)]

    def proposals(self, maps: list[mx.array]) -> tuple[mx.array, mx.array, mx.array]:
        """Of every pixel: (B, N, dim) features, (B, N, classes) logits, (B, N, 4) log odds."""
        B, _, _, dim = maps[0].shape
        places, valid = anchors([(y.shape[1], y.shape[2]) for y in maps])
        flat = mx.concatenate([y.reshape(B, -1, dim) for y in maps], axis=1)
        linear, norm = self.enc_output
        features = norm(linear(flat * valid))
        return features, self.enc_score_head(features), self.enc_bbox_head(features) + places

    def detect(self, x: mx.array) -> tuple[mx.array, mx.array]:
        """(B, H, W, 3) image to (B, Q, classes) logits and (B, Q, 4) boxes."""
        maps = self.memory(x)
        features, logits, odds = self.proposals(maps)
        chosen = best(logits.max(axis=-1), self.config.queries)
        boxes = mx.sigmoid(rows(odds, chosen))
        return self.decoder(rows(features, chosen), boxes, maps)


_RENAMES = (
    (r"^model\.backbone\.model\.", "backbone."),
    (r"^model\.", ""),
    (r"^(class_embed|bbox_embed)\.", r"decoder.\1."),
    (r"embedder\.embedder\.", "embedder."),
    (r"backbone\.encoder\.stages\.(\d)\.layers\.", r"backbone.stages.\1."),
    (r"\.shortcut\.(1\.)?(convolution|normalization)\.", r".shortcut.project.\2."),
    (r"\.convolution\.", ".conv."),
    (r"\.normalization\.", ".bn."),
    (r"((lateral|downsample)_convs\.\d|\.conv\d)\.norm\.", r"\1.bn."),
    (r"((en|de)coder_input_proj\.\d)\.0\.", r"\1.conv."),
    (r"((en|de)coder_input_proj\.\d)\.1\.", r"\1.bn."),
    # What transformers called layers before its version 5, as files still do.
    (r"encoder\.encoder\.(\d)\.layers\.", r"encoder.aifi.\1.layers."),
    (r"\.out_proj\.", ".o_proj."),
    (r"(layers\.\d)\.fc(\d)\.", r"\1.mlp.fc\2."),
)


def _adapt(shapes: Shapes) -> dict[str, Any]:
    """Whether there are scales, which follow from the number of points where there are none."""
    return {"own_scale": any(key.endswith("n_points_scale") for key in shapes)}


def _register(size: str, params: int, config: RTDetrConfig, ap: str, ap_v2: str) -> None:
    for version, published in (("", ap), ("_v2", ap_v2)):
        name = f"rtdetr{version}_{size}vd"
        register_model(
            ModelSpec(
                name=name,
                family="rt_detr",
                build=RTDetr,
                config=replace(config, own_scale=bool(version)),
                preprocess=Preprocess(
                    size=640,
                    crop_pct=1,
                    crop_mode="squash",
                    interpolation="bilinear",
                    mean=(0, 0, 0),
                    std=(1, 1, 1),
                ),
                checkpoints=(
                    Checkpoint(
                        tag="coco",
                        repo=f"PekingU/{name}",
                        license="apache-2.0",
                        note=f"{published} AP on COCO as published",
                        labels=COCO,
                    ),
                ),
                renames=_RENAMES,
                unused=r"denoising_class_embed\.|^model\.(anchors|valid_mask)$",
                copies=r"^model\.decoder\.(class|bbox)_embed\.",
                adapt=_adapt,
                params=params,
            )
        )


_LARGE = (256, 512, 1024, 2048)
_register(
    "r18",
    20_163_728,
    RTDetrConfig(
        dims=(64, 128, 256, 512),
        depths=(2, 2, 2, 2),
        bottleneck=False,
        expansion=0.5,
        decoder_depth=3,
    ),
    "46.5",
    "48.1",
)
_register(
    "r34",
    31_420_932,
    RTDetrConfig(
        dims=(64, 128, 256, 512),
        depths=(3, 4, 6, 3),
        bottleneck=False,
        expansion=0.5,
        decoder_depth=4,
    ),
    "48.9",
    "49.9",
)
_register("r50", 42_923_884, RTDetrConfig(dims=_LARGE, depths=(3, 4, 6, 3)), "53.1", "53.4")
_register(
    "r101",
    76_641_004,
    RTDetrConfig(dims=_LARGE, depths=(3, 4, 23, 3), encoder_dim=384, encoder_ffn=2048),
    "54.3",
    "54.3",
)
