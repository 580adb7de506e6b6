"""A detection transformer on three maps of any backbone.

Paper: https://arxiv.org/abs/2304.08069 (RT-DETR); names follow transformers
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
import mlx.nn as nn

from ..config import ModelConfig
from ..cpu import kernels
from .deformable import (
    BoxHead,
    DeformableAttention,
    anchors,
    best,
    inverse_sigmoid,
    rows,
    sine_positions,
)
from .detection import Detector
from .layers import ConvNorm
from .qkv_attention import Attention
from .reparam import sum_convs

LEVELS, POINTS = 3, 4


@dataclass(frozen=True, kw_only=True)
class DetrConfig(ModelConfig):
    """What stands behind the backbone."""

    num_classes: int = 80
    encoder_dim: int = 256
    encoder_ffn: int = 1024
    expansion: float = 1.0  # of the encoder's blocks
    decoder_dim: int = 256
    decoder_ffn: int = 1024
    decoder_depth: int = 6
    heads: int = 8
    queries: int = 300
    own_scale: bool = False  # of the places that a query looks at, as version 2 has it
    anchor_side: float = 0.05  # of a candidate's square on the finest map, as part of the image


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

    def __init__(self, config: DetrConfig) -> None:
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

    def __init__(self, config: DetrConfig) -> None:
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
    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        dim, depth = config.decoder_dim, config.decoder_depth
        self.layers = [DecoderLayer(config) for _ in range(depth)]
        self.query_pos_head = BoxHead((4, 2 * dim, dim))
        self.bbox_embed = [BoxHead((dim, dim, dim, 4)) for _ in range(depth)]
        self.class_embed = [nn.Linear(dim, config.num_classes) for _ in range(depth)]

    def __call__(
        self, x: mx.array, boxes: mx.array, maps: list[mx.array]
    ) -> list[tuple[mx.array, mx.array]]:
        """(B, Q, dim) queries and their boxes to (B, Q, classes) logits and better boxes of
        each layer. In training the boxes that a layer is given are constants to it."""
        found = []
        heads = zip(self.layers, self.bbox_embed, self.class_embed, strict=True)
        for layer, box_head, class_head in heads:
            x = layer(x, self.query_pos_head(boxes), boxes, maps)
            better = mx.sigmoid(box_head(x) + inverse_sigmoid(boxes))
            found.append((class_head(x), better))
            boxes = mx.stop_gradient(better) if self.training else better
        return found


class Detr(Detector):
    """Abstract: a family gives the ``backbone`` and the ``channels`` of the three maps that
    ``stages`` gives."""

    def __init__(
        self, config: DetrConfig, backbone: nn.Module, channels: Sequence[int]
    ) -> None:
        super().__init__()
        c, dim = config, config.decoder_dim
        self.config = c
        self.backbone = backbone
        self.encoder_input_proj = [ConvNorm(n, c.encoder_dim) for n in channels]
        self.encoder = HybridEncoder(c)
        self.decoder_input_proj = [ConvNorm(c.encoder_dim, dim) for _ in range(LEVELS)]
        self.enc_output = [nn.Linear(dim, dim), nn.LayerNorm(dim)]
        self.enc_score_head = nn.Linear(dim, c.num_classes)
        self.enc_bbox_head = BoxHead((dim, dim, dim, 4))
        self.decoder = Decoder(c)

    def stages(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to the backbone's three NHWC maps, from fine to coarse."""
        maps: list[mx.array] = self.backbone(x)
        return maps

    def memory(self, x: mx.array) -> list[mx.array]:
        """(B, H, W, 3) image to the three (B, h, w, dim) maps that queries look at."""
        layers = zip(self.encoder_input_proj, self.stages(x), strict=True)
        maps = self.encoder([project(y) for project, y in layers])
        return [f(y) for f, y in zip(self.decoder_input_proj, maps, strict=True)]

    def proposals(self, maps: list[mx.array]) -> tuple[mx.array, mx.array, mx.array, mx.array]:
        """Of every pixel: (B, N, dim) features, (B, N, classes) logits, (B, N, 4) log odds; and
        those of its anchor (N, 4)."""
        B, _, _, dim = maps[0].shape
        sizes = [(y.shape[1], y.shape[2]) for y in maps]
        places, valid = anchors(sizes, self.config.anchor_side)
        flat = mx.concatenate([y.reshape(B, -1, dim) for y in maps], axis=1)
        linear, norm = self.enc_output
        features = norm(linear(flat * valid))
        odds = self.enc_bbox_head(features) + places
        return features, self.enc_score_head(features), odds, places

    def candidates(self, x: mx.array) -> list[tuple[mx.array, ...]]:
        """(B, H, W, 3) image to what a loss compares with the truth, each as (B, N, classes)
        logits and (B, N, 4) boxes: of every pixel, with their anchors (N, 4), then of each
        layer of the decoder."""
        maps = self.memory(x)
        features, logits, odds, places = self.proposals(maps)
        chosen = best(logits.max(axis=-1), self.config.queries)
        queries, boxes = rows(features, chosen), mx.sigmoid(rows(odds, chosen))
        if self.training:  # they are judged as candidates, not by what becomes of them
            queries, boxes = mx.stop_gradient(queries), mx.stop_gradient(boxes)
        found = self.decoder(queries, boxes, maps)
        return [(logits, mx.sigmoid(odds), mx.sigmoid(places)), *found]

    def detect(self, x: mx.array) -> tuple[mx.array, mx.array]:
        """(B, H, W, 3) image to (B, Q, classes) logits and (B, Q, 4) boxes."""
        logits, boxes = self.candidates(x)[-1]
        return logits, boxes
