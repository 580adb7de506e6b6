"""RF-DETR: objects in an image, by a windowed DINOv2 and a light decoder.

Paper: https://arxiv.org/abs/2511.09554
Code: https://github.com/roboflow/rf-detr (Apache-2.0); names follow transformers
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..config import FeatureInfo, ModelConfig, Preprocess
from ..config.labels import COCO91
from ..cpu import kernels
from ..nn.deformable import BoxHead, DeformableAttention, best, rows
from ..nn.detection import Detector
from ..nn.dinov2 import RENAMES, Backbone
from ..nn.layers import Conv2d
from ..nn.qkv_attention import Attention
from ..registry import Checkpoint, ModelSpec, register_model

NEVER = -1e4  # the score of a place that is none: it fits float16


@dataclass(frozen=True, kw_only=True)
class RFDetrConfig(ModelConfig):
    num_classes: int = 91
    embed_dim: int = 384  # of the backbone, DINOv2-small
    depth: int = 12
    heads: int = 6
    out: tuple[int, ...] = (3, 6, 9, 12)  # the blocks whose tokens are read, counted from 1
    patch: int = 16
    windows: int = 2
    table: int = 24  # the side of the table of positions, in patches
    dim: int = 256
    ffn: int = 2048
    decoder_depth: int = 3
    self_heads: int = 8
    cross_heads: int = 16
    points: int = 2
    queries: int = 300
    groups: int = 13  # of queries in training; the first is for inference

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        return tuple(FeatureInfo(i, self.embed_dim, self.patch) for i in range(len(self.out)))

    @property
    def stride(self) -> int:
        return self.patch * self.windows


class ConvLayerNorm(nn.Module):
    """A convolution, a norm of each pixel's channels, and SiLU."""

    def __init__(self, in_dim: int, dim: int, kernel: int = 1) -> None:
        super().__init__()
        self.conv = Conv2d(in_dim, dim, kernel, 1, kernel // 2, bias=False)
        self.norm = nn.LayerNorm(dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, in) map to (B, H, W, dim)."""
        return nn.silu(self.norm(self.conv(x)))


class Bottleneck(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = ConvLayerNorm(dim, dim, 3), ConvLayerNorm(dim, dim, 3)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, dim) map to the same shape."""
        return self.conv2(self.conv1(x))


class C2F(nn.Module):
    """Half of the channels goes through bottlenecks, and what each gives is kept."""

    def __init__(self, in_dim: int, dim: int, blocks: int = 3) -> None:
        super().__init__()
        hidden = dim // 2
        self.conv1 = ConvLayerNorm(in_dim, 2 * hidden)
        self.conv2 = ConvLayerNorm((2 + blocks) * hidden, dim)
        self.bottlenecks = [Bottleneck(hidden) for _ in range(blocks)]

    def __call__(self, x: mx.array) -> mx.array:
        """(B, H, W, in) map to (B, H, W, dim)."""
        found = list(mx.split(self.conv1(x), 2, axis=-1))
        for block in self.bottlenecks:
            found.append(block(found[-1]))
        return self.conv2(mx.concatenate(found, axis=-1))


class DecoderMlp(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(dim, hidden), nn.Linear(hidden, dim)

    def __call__(self, x: mx.array) -> mx.array:
        """(B, Q, dim) to the same shape."""
        return self.fc2(kernels.relu(self.fc1(x)))


class DecoderLayer(nn.Module):
    """Queries look at each other, then at places around their boxes."""

    def __init__(self, config: RFDetrConfig) -> None:
        super().__init__()
        c = config
        self.self_attn = Attention(c.dim, c.self_heads)
        self.self_attn_layer_norm = nn.LayerNorm(c.dim)
        self.cross_attn = DeformableAttention(c.dim, c.cross_heads, 1, c.points)
        self.cross_attn_layer_norm = nn.LayerNorm(c.dim)
        self.mlp = DecoderMlp(c.dim, c.ffn)
        self.layer_norm = nn.LayerNorm(c.dim)

    def __call__(
        self, x: mx.array, positions: mx.array, boxes: mx.array, features: mx.array
    ) -> mx.array:
        """(B, Q, dim) queries with their positions and (B, Q, 4) boxes to the same shape."""
        placed = x + positions
        x = self.self_attn_layer_norm(x + self.self_attn(placed, placed, x))
        found = self.cross_attn(x + positions, boxes, [features])
        x = self.cross_attn_layer_norm(x + found)
        return self.layer_norm(x + self.mlp(x))


class Decoder(nn.Module):
    def __init__(self, config: RFDetrConfig) -> None:
        super().__init__()
        dim = config.dim
        self.layers = [DecoderLayer(config) for _ in range(config.decoder_depth)]
        self.layernorm = nn.LayerNorm(dim)
        self.ref_point_head = BoxHead((2 * dim, dim, dim))

    def __call__(self, x: mx.array, boxes: mx.array, features: mx.array) -> mx.array:
        """(B, Q, dim) queries and their boxes to the queries that they become."""
        positions = self.ref_point_head(waves(boxes, x.shape[-1] // 2))
        for layer in self.layers:
            x = layer(x, positions, boxes, features)
        return self.layernorm(x)


def waves(boxes: mx.array, dim: int, temperature: float = 1e4) -> mx.array:
    """(B, Q, 4) boxes to (B, Q, 4 x dim): of y, x, width and height each, sine and cosine of
    one rate after the other."""
    import numpy as np

    rates: Any = 2 * math.pi / np.power(temperature, np.arange(dim // 2) / (dim // 2))
    x, y, w, h = mx.split(boxes, 4, axis=-1)
    angles = mx.stack([y, x, w, h], axis=2) * mx.array(rates.astype(np.float32))
    both = mx.stack([mx.sin(angles), mx.cos(angles)], axis=-1)
    return both.reshape(*boxes.shape[:2], 4 * dim)


def refined(boxes: mx.array, deltas: mx.array) -> mx.array:
    """(B, Q, 4) boxes moved by parts of their size, and made larger by powers of e."""
    centre, size = boxes[..., :2], boxes[..., 2:]
    moved = centre + deltas[..., :2] * size
    return mx.concatenate([moved, mx.exp(deltas[..., 2:]) * size], axis=-1)


class RFDetr(Detector):
    def __init__(self, config: RFDetrConfig) -> None:
        super().__init__()
        c, dim = config, config.dim
        self.config = c
        self.backbone: dict[str, Any] = {
            "backbone": Backbone(
                *(c.embed_dim, c.depth, c.heads, c.out, c.patch, c.table),
                windows=c.windows,
                antialias=True,
            ),
            "projector": {
                "projector_layer": C2F(len(c.out) * c.embed_dim, dim),
                "layer_norm": nn.LayerNorm(dim, eps=1e-6),
            },
        }
        self.enc_output, self.enc_output_norm = nn.Linear(dim, dim), nn.LayerNorm(dim)
        self.enc_out_class_embed = nn.Linear(dim, c.num_classes)
        self.enc_out_bbox_embed = BoxHead((dim, dim, dim, 4))
        self.reference_point_embed = nn.Embedding(c.groups * c.queries, 4)
        self.query_feat = nn.Embedding(c.groups * c.queries, dim)
        self.decoder = Decoder(c)
        self.class_embed = nn.Linear(dim, c.num_classes)
        self.bbox_embed = BoxHead((dim, dim, dim, 4))

    def features(self, x: mx.array) -> mx.array:
        """(B, H, W, 3) image to the (B, h, w, dim) map that queries look at."""
        maps = mx.concatenate(self.backbone["backbone"](x), axis=-1)
        project: Any = self.backbone["projector"]
        found: mx.array = project["layer_norm"](project["projector_layer"](maps))
        return found

    def proposals(self, features: mx.array) -> tuple[mx.array, mx.array]:
        """Of every pixel: (B, N, classes) logits and (B, N, 4) boxes."""
        B, H, W, C = features.shape
        places, valid = squares(H, W)
        x = features.reshape(B, H * W, C)
        x = self.enc_output_norm(self.enc_output(x if valid is None else x * valid))
        logits = self.enc_out_class_embed(x)
        if valid is not None:
            logits = logits * valid + NEVER * (1 - valid)
        return logits, refined(places, self.enc_out_bbox_embed(x))

    def detect(self, x: mx.array) -> tuple[mx.array, mx.array]:
        """(B, H, W, 3) image to (B, Q, classes) logits and (B, Q, 4) boxes."""
        features = self.features(x)
        logits, boxes = self.proposals(features)
        chosen = rows(boxes, best(logits.max(axis=-1), self.config.queries))
        moves = self.reference_point_embed.weight[: self.config.queries]
        return self.decoded(features, refined(chosen, moves[None]))

    def decoded(self, features: mx.array, boxes: mx.array) -> tuple[mx.array, mx.array]:
        """What is in (B, Q, 4) boxes, by the map of features: logits, and better boxes."""
        queries = self.query_feat.weight[: self.config.queries]
        queries = mx.broadcast_to(queries, (len(boxes), *queries.shape))
        found = self.decoder(queries, boxes, features)
        return self.class_embed(found), refined(boxes, self.bbox_embed(found))


def squares(height: int, width: int, side: float = 0.05) -> tuple[mx.array, mx.array | None]:
    """A (1, N, 4) square around each pixel of a map, and whether its centre lies well within
    the image, (N, 1): None if all do."""
    import numpy as np

    row, column = np.mgrid[:height, :width] + 0.5
    centres = np.stack([column / width, row / height], axis=-1).reshape(-1, 2)
    valid = ((centres > 0.01) & (centres < 0.99)).all(axis=1, keepdims=True)
    boxes = np.concatenate([centres, np.full_like(centres, side)], axis=1) * valid
    tables: Any = (boxes.astype(np.float32)[None], valid.astype(np.float32))
    return mx.array(tables[0]), None if valid.all() else mx.array(tables[1])


_UPSTREAM = (  # as files on the hub have it: the names of the authors' code
    (r"^model\.", ""),
    (r"^backbone\.0\.encoder\.encoder\.", "backbone.backbone."),
    (r"^backbone\.0\.projector\.", "backbone.projector."),
    (r"projector\.stages\.0\.0\.m\.(\d)\.cv", r"projector.projector_layer.bottlenecks.\1.conv"),
    (r"projector\.stages\.0\.0\.cv", "projector.projector_layer.conv"),
    (r"projector\.stages\.0\.1\.", "projector.layer_norm."),
    (r"(conv\d)\.bn\.", r"\1.norm."),
    (r"^transformer\.", ""),
    (r"(decoder\.layers\.\d)\.norm1\.", r"\1.self_attn_layer_norm."),
    (r"(decoder\.layers\.\d)\.norm2\.", r"\1.cross_attn_layer_norm."),
    (r"(decoder\.layers\.\d)\.norm3\.", r"\1.layer_norm."),
    (r"(decoder\.layers\.\d)\.linear(\d)\.", r"\1.mlp.fc\2."),
    (r"^decoder\.norm\.", "decoder.layernorm."),
    (r"^refpoint_embed\.", "reference_point_embed."),
    (r"self_attn\.out_proj\.", "self_attn.o_proj."),
    # Of thirteen groups of queries the first is left for inference.
    (r"^(enc_output|enc_output_norm|enc_out_\w+_embed)\.0\.", r"\1."),
)


def _register(size: str, pixels: int, params: int, ap: float, config: RFDetrConfig) -> None:
    register_model(
        ModelSpec(
            name=f"rf_detr_{size}",
            family="rf_detr",
            build=RFDetr,
            config=config,
            preprocess=Preprocess(
                size=pixels, crop_pct=1, crop_mode="squash", interpolation="bilinear"
            ),
            checkpoints=(
                Checkpoint(
                    tag="coco",
                    repo=f"Roboflow/rf-detr-{size}",
                    license="apache-2.0",
                    note=f"{ap} AP on COCO as published; classes have COCO's own numbers",
                    labels=COCO91,
                ),
            ),
            renames=(*_UPSTREAM, *RENAMES),
            splits=(
                (
                    r"self_attn\.in_proj_(weight|bias)$",
                    tuple(rf"self_attn.{name}_proj.\1" for name in "qkv"),
                ),
            ),
            unused=r"mask_token$|enc_out(put|put_norm|_\w+_embed)\.([1-9]|1\d)\.",
            params=params,
        )
    )


# Parameters as counted: published counts have the twelve groups of queries that only train.
_register("nano", 384, 27_799_278, 48.4, RFDetrConfig(decoder_depth=2))
_register("small", 512, 29_443_150, 53.0, RFDetrConfig(table=32))
_register("medium", 576, 31_019_438, 54.7, RFDetrConfig(table=36, decoder_depth=4))
_register("large", 704, 31_265_198, 56.5, RFDetrConfig(table=44, decoder_depth=4))
_register(
    "base",
    560,
    29_506_510,
    53.3,
    RFDetrConfig(out=(2, 5, 8, 11), patch=14, windows=4, table=37),
)
