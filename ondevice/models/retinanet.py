"""RetinaNet on SHViT and EfficientViT: nine anchors for each position, the surest are kept.

Papers: https://arxiv.org/abs/1708.02002 (RetinaNet), https://arxiv.org/abs/2401.16456 (SHViT),
https://arxiv.org/abs/2305.07027 (EfficientViT)
Code: https://github.com/ysj9909/SHViT/tree/main/downstream (MIT),
https://github.com/microsoft/Cream/tree/main/EfficientViT/downstream (MIT); names of the neck
and the head follow mmdetection 2
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..config import FeatureInfo, ModelConfig, Preprocess
from ..config.labels import COCO
from ..cpu import kernels
from ..nn.deformable import best, rows
from ..nn.detection import Detector
from ..nn.layers import Conv2d
from ..registry import Checkpoint, ModelSpec, model_spec, register_model
from . import efficientvit_msra, shvit  # noqa: F401 - register the backbones

LEVELS = 5  # maps with anchors, the finest of stride 8, each other half as fine
FINEST = 8
RATIOS = (0.5, 1.0, 2.0)  # of an anchor's height to its width
SCALES = tuple(4 * 2 ** (i / 3) for i in range(3))  # the root of its area, in strides
MAX_GROWTH = math.log(1000 / 16)  # of a box beside its anchor, as a power of e


@dataclass(frozen=True, kw_only=True)
class RetinaNetConfig(ModelConfig):
    """``candidates`` are the boxes that come out, the surest of all anchors' on all maps."""

    num_classes: int = 80
    backbone: str  # a variant of the registry
    dim: int = 256
    convs: int = 4  # before each of the head's two last ones
    candidates: int = 1000

    @property
    def feature_info(self) -> tuple[FeatureInfo, ...]:
        return model_spec(self.backbone).config.feature_info

    @property
    def stride(self) -> int:
        """That of the backbone's last map: each has exactly half the size of the finer."""
        return self.feature_info[-1].stride


class Pyramid(nn.Module):
    """Maps of one width of three maps: coarse ones added to the finer, one finer and one
    coarser than all made of their neighbours."""

    def __init__(self, channels: Sequence[int], dim: int) -> None:
        super().__init__()
        self.lateral_convs = [Conv2d(n, dim, 1) for n in channels]
        self.fpn_convs = [Conv2d(dim, dim, 3, 1, 1) for _ in channels]
        self.fpn_convs.append(Conv2d(channels[-1], dim, 3, 2, 1))
        self.extra_trans_convs = [nn.ConvTranspose2d(dim, dim, 2, 2)]
        self.extra_fpn_convs = [Conv2d(dim, dim, 3, 1, 1)]
        self.double = nn.Upsample(2)

    def __call__(self, maps: list[mx.array]) -> list[mx.array]:
        """Three NHWC maps from fine to coarse to five (B, h, w, dim) from fine to coarse."""
        added = [conv(x) for conv, x in zip(self.lateral_convs, maps, strict=True)]
        for i in reversed(range(len(added) - 1)):
            added[i] = added[i] + self.double(added[i + 1])
        *convs, down = self.fpn_convs
        (up,), (finest,) = self.extra_trans_convs, self.extra_fpn_convs
        inner = [conv(x) for conv, x in zip(convs, added, strict=True)]
        return [finest(up(added[0])), *inner, down(maps[-1])]


class RetinaHead(nn.Module):
    """What is at each anchor, and how a box differs from it: the same layers on every map."""

    def __init__(self, config: RetinaNetConfig) -> None:
        super().__init__()
        dim, each = config.dim, len(RATIOS) * len(SCALES)
        self.classes = config.num_classes
        self.cls_convs = [Conv2d(dim, dim, 3, 1, 1) for _ in range(config.convs)]
        self.reg_convs = [Conv2d(dim, dim, 3, 1, 1) for _ in range(config.convs)]
        self.retina_cls = Conv2d(dim, each * config.num_classes, 3, 1, 1)
        self.retina_reg = Conv2d(dim, each * 4, 3, 1, 1)

    def __call__(self, maps: list[mx.array]) -> tuple[mx.array, mx.array]:
        """NHWC maps to (B, N, classes) logits and (B, N, 4) deltas of their anchors."""
        logits = [_through([*self.cls_convs, self.retina_cls], x) for x in maps]
        deltas = [_through([*self.reg_convs, self.retina_reg], x) for x in maps]
        return _by_anchor(logits, self.classes), _by_anchor(deltas, 4)


def _through(layers: Sequence[nn.Module], x: mx.array) -> mx.array:
    """Convolutions with ReLU between them."""
    *inner, last = layers
    for layer in inner:
        x = kernels.relu(layer(x))
    y: mx.array = last(x)
    return y


def _by_anchor(maps: list[mx.array], width: int) -> mx.array:
    """(B, h, w, anchors x width) maps to (B, N, width), one map after the other."""
    B, _, _, channels = maps[0].shape
    flat = mx.concatenate([y.reshape(B, -1, channels) for y in maps], axis=1)
    return flat.reshape(B, -1, width)


def anchors(height: int, width: int) -> mx.array:
    """(N, 4) boxes around the upper left corner of each pixel of the maps of an image: centre
    and size as parts of it. Of a pixel, all scales of one ratio come before the next ratio."""
    import numpy as np

    sides = [
        (scale / root, scale * root) for root in map(math.sqrt, RATIOS) for scale in SCALES
    ]
    found = []
    for level in range(LEVELS):
        stride = FINEST * 2**level
        row, column = np.mgrid[: -(-height // stride), : -(-width // stride)]
        corners = np.stack([column, row], axis=-1).reshape(-1, 1, 2)
        pairs = np.broadcast_arrays(corners, np.array(sides)[None])
        found.append(stride * np.concatenate(pairs, axis=-1).reshape(-1, 4))
    parts: Any = np.concatenate(found) / [width, height, width, height]
    return mx.array(parts.astype(np.float32))


def moved(boxes: mx.array, deltas: mx.array) -> mx.array:
    """(B, N, 4) boxes moved by parts of their size, and made larger by powers of e."""
    centre, size = boxes[..., :2], boxes[..., 2:]
    growth = mx.clip(deltas[..., 2:], -MAX_GROWTH, MAX_GROWTH)
    return mx.concatenate([centre + deltas[..., :2] * size, size * mx.exp(growth)], axis=-1)


class RetinaNet(Detector):
    max_overlap = 0.5

    def __init__(self, config: RetinaNetConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = _backbone(config.backbone)
        self.neck = Pyramid([stage.channels for stage in config.feature_info], config.dim)
        self.bbox_head = RetinaHead(config)

    def proposals(self, x: mx.array) -> tuple[mx.array, mx.array]:
        """(B, H, W, 3) image to (B, N, classes) logits and (B, N, 4) deltas of all anchors."""
        logits, deltas = self.bbox_head(self.neck(self.backbone.maps(x)))
        return logits, deltas

    def detect(self, x: mx.array) -> tuple[mx.array, mx.array]:
        """(B, H, W, 3) image to (B, N, classes) logits and (B, N, 4) boxes of the anchors
        whose surest class is surest."""
        logits, deltas = self.proposals(x)
        chosen = best(logits.max(axis=-1), self.config.candidates)
        places = anchors(*x.shape[1:3])[chosen]
        return rows(logits, chosen), moved(places, rows(deltas, chosen))


def _backbone(name: str) -> nn.Module:
    """A variant without its head, its windows those of large images."""
    spec = model_spec(name)
    large = {"img_size": 448} if "img_size" in spec.config.to_dict() else {}
    return spec.build(replace(spec.config, num_classes=0, **large))


def _renames(backbone: str) -> tuple[tuple[str, str], ...]:
    """mmdetection's and the backbone's, which begins with its own name here."""
    own = model_spec(backbone).renames
    inner = [
        (p.replace("^", r"^backbone\.", 1), f"backbone.{ours}") if p[0] == "^" else (p, ours)
        for p, ours in own
    ]
    return *inner, (r"^((neck|bbox_head)\..*\.\d)\.conv\.", r"\1.")


def _register(backbone: str, params: int, ap: float, url: str, more: str = "") -> None:
    """``url`` on GitHub. The authors' photos are as large as fits into 1333 x 800 px, resized
    without antialiasing, the rest to the right and below; here they are in the middle."""
    register_model(
        ModelSpec(
            name=f"retinanet_{backbone}",
            family="retinanet",
            build=RetinaNet,
            config=RetinaNetConfig(backbone=backbone),
            preprocess=Preprocess(
                size=640, crop_pct=1, crop_mode="border", interpolation="bilinear"
            ),
            checkpoints=(
                Checkpoint(
                    tag="coco",
                    url=f"https://github.com/{url}",
                    license="mit",
                    note=f"{ap} AP on COCO as published, for photos resized to fit into "
                    f"1333 x 800 px; of a square of 640 px it is not known{more}",
                    labels=COCO,
                ),
            ),
            renames=_renames(backbone),
            params=params,
        )
    )


_register(
    "shvit_s4",
    26_515_792,
    38.8,
    "ysj9909/SHViT/releases/download/v1.0/retinanet_shvit_s4_1x_coco.pth",
)
_register(
    "efficientvit_m4",
    18_587_164,
    32.7,
    "xinyuliu-jeffrey/EfficientViT_Model_Zoo/releases/download/v1.0/"
    "retinanet_efficientvit_m4_fpn_1x_coco.pth",
    "; the licence is that of the authors' code, which names this file",
)
