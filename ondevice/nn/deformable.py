"""Deformable attention: each query reads a few computed places of several maps.

Paper: https://arxiv.org/abs/2010.04159; names follow transformers
"""

from __future__ import annotations

import copy
from itertools import pairwise
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from ..cpu import kernels
from .qkv_attention import scaled


def grid_sample(x: mx.array, grid: mx.array) -> mx.array:
    """(B, H, W, C) maps at the points (x, y) of a grid (B, N, M, 2): (B, N, M, C).

    -1 and 1 are the edges of a map; outside there is zero, between pixels it is linear.
    """
    B, H, W, C = x.shape
    at = (grid + 1) * mx.array([W / 2, H / 2]) - 0.5
    low = mx.floor(at)
    (at_x, at_y), (left, top) = ((v[..., 0], v[..., 1]) for v in (at, low))
    rows, batch = x.reshape(B, H * W, C), mx.arange(B)[:, None]
    total: mx.array | float = 0.0
    for right, down in ((0, 0), (1, 0), (0, 1), (1, 1)):
        column, row = left + right, top + down
        inside = (row >= 0) & (row < H) & (column >= 0) & (column < W)
        weight = (1 - mx.abs(at_x - column)) * (1 - mx.abs(at_y - row)) * inside
        index = mx.clip(row, 0, H - 1) * W + mx.clip(column, 0, W - 1)
        index = mx.stop_gradient(index.astype(mx.int32))  # MLX would ask for one
        pixels = rows[batch, index.reshape(B, -1)]
        pixels = pixels.reshape(*grid.shape[:-1], C)
        total = total + pixels * weight[..., None].astype(x.dtype)
    return mx.array(total)


class DeformableAttention(nn.Module):
    """Multi-head, over ``levels`` maps, ``points`` places a head and map.

    Places lie within half a box of its centre times what is computed of a query, over the
    number of points: with ``own_scale``, the parameter ``n_points_scale`` in its place.
    """

    def __init__(
        self, dim: int, heads: int, levels: int, points: int, *, own_scale: bool = False
    ) -> None:
        super().__init__()
        if own_scale:
            self.n_points_scale = mx.full((levels * points,), 1 / points)
        self.is_fused = False
        self.heads, self.levels, self.points = heads, levels, points
        self.sampling_offsets = nn.Linear(dim, heads * levels * points * 2)
        self.attention_weights = nn.Linear(dim, heads * levels * points)
        self.value_proj = nn.Linear(dim, dim)
        self.output_proj = nn.Linear(dim, dim)

    def __call__(self, x: mx.array, boxes: mx.array, maps: list[mx.array]) -> mx.array:
        """(B, Q, dim) queries around their (B, Q, 4) boxes, of (B, H, W, dim) maps, to the
        queries' shape. Boxes are centre, width and height as parts of the image."""
        B, Q, dim = x.shape
        heads, count = self.heads, self.levels * self.points
        centre, size = boxes[:, None, :, None, :2], boxes[:, None, :, None, 2:]
        offsets = self._by_head(self.sampling_offsets(x)).reshape(B, heads, Q, count, 2)
        if not self.is_fused:  # two halves of a box, to the edges -1 and 1 of the image
            offsets = offsets * self._reach()[:, None]
        grid = (2 * centre - 1) + offsets * size
        grids = mx.split(grid.reshape(B * heads, Q, count, 2), self.levels, axis=2)
        weights = self._by_head(self.attention_weights(x))
        weights = kernels.softmax(weights, precise=True).reshape(B * heads, Q, count, 1)
        values = [self._values(y) for y in maps]
        found = [grid_sample(v, at) for v, at in zip(values, grids, strict=True)]
        y = (mx.concatenate(found, axis=2) * weights).sum(axis=2)
        y = y.reshape(B, heads, Q, dim // heads).swapaxes(1, 2).reshape(B, Q, dim)
        return self.output_proj(y)

    def _reach(self) -> mx.array:
        """(levels x points,): the places of an offset of 1, in halves of a box."""
        count = self.levels * self.points
        return self.get("n_points_scale", mx.full((count,), 1 / self.points))

    def fuse(self) -> DeformableAttention:
        """The reach goes into the layer that gives the offsets."""
        if self.is_fused:
            return self
        fused = copy.copy(self)
        fused.pop("n_points_scale", None)
        reach = mx.tile(mx.repeat(self._reach(), 2), self.heads)
        fused.sampling_offsets, fused.is_fused = scaled(self.sampling_offsets, reach), True
        return fused

    def _by_head(self, x: mx.array) -> mx.array:
        """(B, Q, heads x n) to (B, heads, Q, n)."""
        B, Q, _ = x.shape
        return x.reshape(B, Q, self.heads, -1).swapaxes(1, 2)

    def _values(self, x: mx.array) -> mx.array:
        """(B, H, W, dim) map to (B x heads, H, W, dim / heads)."""
        B, H, W, dim = x.shape
        x = self.value_proj(x).reshape(B, H * W, self.heads, dim // self.heads)
        return x.swapaxes(1, 2).reshape(B * self.heads, H, W, dim // self.heads)


class BoxHead(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, dims: tuple[int, ...]) -> None:
        super().__init__()
        self.layers = [nn.Linear(a, b) for a, b in pairwise(dims)]

    def __call__(self, x: mx.array) -> mx.array:
        """(..., first) to (..., last)."""
        *inner, last = self.layers
        for layer in inner:
            x = kernels.relu(layer(x))
        return last(x)


def inverse_sigmoid(x: mx.array, eps: float = 1e-5) -> mx.array:
    """The logarithm of the odds of probabilities, cut off at ``eps`` from 0 and 1."""
    return mx.log(mx.maximum(x, eps) / mx.maximum(1 - x, eps))


def best(scores: mx.array, count: int) -> mx.array:
    """(B, N) scores to the (B, count) positions of the largest, the largest first, and of
    equal ones the first."""
    return mx.argsort(-mx.stop_gradient(scores), axis=1)[:, :count]


def rows(x: mx.array, index: mx.array) -> mx.array:
    """(B, N, C) to the (B, M, C) rows that the (B, M) ``index`` says."""
    return mx.take_along_axis(x, index[..., None], axis=1)


def sine_positions(height: int, width: int, dim: int, temperature: float = 1e4) -> mx.array:
    """(height x width, dim): sines and cosines of the row, then of the column."""
    import numpy as np

    rates = np.power(temperature, -np.arange(dim // 4) / (dim // 4))
    row, column = np.mgrid[:height, :width].reshape(2, -1, 1) * rates
    waves = [np.sin(row), np.cos(row), np.sin(column), np.cos(column)]
    table: Any = np.concatenate(waves, axis=1).astype(np.float32)
    return mx.array(table)


INVALID = 1e4  # the log odds of an anchor that is none: its sigmoid is 1, and it fits float16


def anchors(sizes: list[tuple[int, int]], side: float = 0.05) -> tuple[mx.array, mx.array]:
    """The (N, 4) log odds of a square around each pixel of maps of these sizes, twice as large
    on each further map; and whether it lies well within the image, (N, 1)."""
    import numpy as np

    found = []
    for level, (height, width) in enumerate(sizes):
        row, column = np.mgrid[:height, :width] + 0.5
        square = np.full((height * width, 2), side * 2**level)
        centres = np.stack([column / width, row / height], axis=-1).reshape(-1, 2)
        found.append(np.concatenate([centres, square], axis=1))
    boxes = np.concatenate(found)
    valid = ((boxes > 0.01) & (boxes < 0.99)).all(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        odds = np.where(valid, np.log(boxes / (1 - boxes)), INVALID)
    tables: Any = (odds.astype(np.float32), valid.astype(np.float32))
    return mx.array(tables[0]), mx.array(tables[1])
