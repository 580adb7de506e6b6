"""The detector that training starts from: a known one, or a new one on a trained backbone."""

from __future__ import annotations

import math

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ...nn.deformable import DeformableAttention
from ...nn.detr import Detr
from ..train.on_backbone import Kind

RARE = 0.01  # what a new detector takes each class's share of the candidates to be


def initialize(model: nn.Module) -> None:
    """Random weights to start from: a new detector gives its anchors, all of them unlikely,
    and its queries look evenly around themselves."""
    for layer in model.modules():
        if isinstance(layer, DeformableAttention):
            _look_around(layer)
    for head in (model.enc_bbox_head, *model.decoder.bbox_embed):
        last = head.layers[-1]
        last.weight, last.bias = mx.zeros_like(last.weight), mx.zeros_like(last.bias)
    for score in (model.enc_score_head, *model.decoder.class_embed):
        score.bias = mx.full(score.bias.shape, math.log(RARE / (1 - RARE)))


def _look_around(layer: DeformableAttention) -> None:
    """Each head in its own direction, each point further away, all of the same weight."""
    angles = np.arange(layer.heads) * (2 * np.pi / layer.heads)
    ways = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    ways /= np.abs(ways).max(axis=-1, keepdims=True)
    steps = np.arange(1, layer.points + 1)[:, None]
    places = np.tile(ways[:, None, None] * steps, (1, layer.levels, 1, 1))
    layer.sampling_offsets.bias = mx.array(places.ravel().astype(np.float32))
    for linear in (layer.sampling_offsets, layer.attention_weights):
        linear.weight = mx.zeros_like(linear.weight)
    layer.attention_weights.bias = mx.zeros_like(layer.attention_weights.bias)


DETECTORS = Kind(
    "detector",
    Detr,
    "light_detr_*",
    scores=r"class_embed\.|^enc_score_head\.",
    initialize=initialize,
)
