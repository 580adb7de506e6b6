"""A bilinear sample in any spelling is one Resample, in both precisions."""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from converters import export_module, load_package

from ...support.lowered import as_module, assert_lowered, ops, physical_graph

RNG = np.random.default_rng(3)
IMAGE = mx.array(RNG.normal(size=(2, 7, 9, 4)).astype(np.float32))
PLANES = mx.array(np.array(IMAGE.transpose(0, 3, 1, 2)))
GRID = mx.array(RNG.uniform(-1.3, 1.3, (2, 5, 6, 2)).astype(np.float32))


def by_pixels(x, grid, aligned):
    """Coordinates in pixels, of the centers or the edges of corners."""
    H, W = x.shape[1:3]
    gx, gy = grid[..., 0], grid[..., 1]
    if aligned:
        return (gx + 1) / 2 * (W - 1), (gy + 1) / 2 * (H - 1)
    return ((gx + 1) * W - 1) / 2, ((gy + 1) * H - 1) / 2


def zeros(x, grid, aligned=False):
    """Rows of a flat image by batch and index, masked where there is no pixel."""
    B, H, W, C = x.shape
    ix, iy = by_pixels(x, grid, aligned)
    x0, y0 = mx.floor(ix).astype(mx.int32), mx.floor(iy).astype(mx.int32)
    flat, batch = x.reshape(B, H * W, C), mx.arange(B)[:, None]
    total = 0
    for dy in (0, 1):
        for dx in (0, 1):
            column, row = x0 + dx, y0 + dy
            inside = (row >= 0) & (row < H) & (column >= 0) & (column < W)
            index = mx.clip(row, 0, H - 1) * W + mx.clip(column, 0, W - 1)
            pixels = flat[batch, index.reshape(B, -1)].reshape(*grid.shape[:-1], C)
            weight = (1 - mx.abs(ix - column)) * (1 - mx.abs(iy - row))
            total = total + pixels * (inside * weight)[..., None]
    return total


def border(x, grid, aligned=False):
    """Coordinates clipped first, rows of a flat image along an axis."""
    B, H, W, C = x.shape
    ix, iy = by_pixels(x, grid, aligned)
    ix, iy = mx.clip(ix, 0, W - 1), mx.clip(iy, 0, H - 1)
    x0, y0 = mx.floor(ix), mx.floor(iy)
    wx, wy = (ix - x0)[..., None], (iy - y0)[..., None]
    x1, y1 = mx.minimum(x0 + 1, W - 1), mx.minimum(y0 + 1, H - 1)

    def at(row, column):
        index = (row * W + column).astype(mx.int32).reshape(B, -1, 1)
        index = mx.broadcast_to(index, (*index.shape[:2], C))
        return mx.take_along_axis(x.reshape(B, -1, C), index, axis=1).reshape(
            *grid.shape[:-1], C
        )

    top = at(y0, x0) * (1 - wx) + at(y0, x1) * wx
    return top * (1 - wy) + (at(y1, x0) * (1 - wx) + at(y1, x1) * wx) * wy


def planes(x, grid):
    """Channels first, an index for all channels, indices clipped, nothing masked."""
    B, C, H, W = x.shape
    ix, iy = (grid[..., 0] + 1) * W / 2 - 0.5, (grid[..., 1] + 1) * H / 2 - 0.5
    fx, fy = mx.floor(ix), mx.floor(iy)
    total = 0
    for dy in (0, 1):
        for dx in (0, 1):
            column, row = mx.clip(fx + dx, 0, W - 1), mx.clip(fy + dy, 0, H - 1)
            index = (row * W + column).astype(mx.int32).reshape(B, 1, -1)
            index = mx.broadcast_to(index, (B, C, index.shape[-1]))
            pixels = mx.take_along_axis(x.reshape(B, C, H * W), index, axis=2)
            wx, wy = (ix - fx, iy - fy)
            weight = (wx if dx else 1 - wx) * (wy if dy else 1 - wy)
            total = total + pixels.reshape(B, C, *grid.shape[1:3]) * weight[:, None]
    return total


def together(x, grid):
    """Both coordinates at once, of one image by rows and columns."""
    H, W = x.shape[1:3]
    at = ((grid[0] + 1) * mx.array([W, H]) - 1) / 2
    low = mx.floor(at)
    part = at - low
    low = low.astype(mx.int32)
    total = 0
    for dy in (0, 1):
        for dx in (0, 1):
            column, row = low[..., 0] + dx, low[..., 1] + dy
            inside = (row >= 0) & (row < H) & (column >= 0) & (column < W)
            pixels = x[0, mx.clip(row, 0, H - 1), mx.clip(column, 0, W - 1)]
            wx = part[..., 0] if dx else 1 - part[..., 0]
            wy = part[..., 1] if dy else 1 - part[..., 1]
            total = total + mx.where(inside[..., None], pixels, 0) * (wx * wy)[..., None]
    return total


SPELLINGS = {
    "zeros": (zeros, IMAGE),
    "zeros, aligned": (lambda x, g: zeros(x, g, True), IMAGE),
    "border": (border, IMAGE),
    "border, aligned": (lambda x, g: border(x, g, True), IMAGE),
    "channels first": (planes, PLANES),
    "both coordinates together": (together, IMAGE[:1]),
    "of tokens": (lambda x, g: zeros(x.reshape(2, 7, 9, 4), g), IMAGE.reshape(2, 63, 4)),
    "weighed and summed": (
        lambda x, g: (zeros(x, g) * mx.softmax(g[..., :1], axis=2)).sum(axis=2),
        IMAGE,
    ),
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_a_sample_is_one_operation(name):
    fn, image = SPELLINGS[name]
    assert_lowered(fn, image, GRID)
    found = ops(fn, image, GRID)
    assert found["Resample"] == 1
    assert not found.keys() & {"Take", "Gather", "GatherAxis", "Floor"}


@pytest.mark.parametrize("name", SPELLINGS)
def test_half_precision_has_the_numbers_too(name, tmp_path):
    fn, image = SPELLINGS[name]
    wanted = np.array(fn(image, GRID), np.float64)
    path = export_module(
        as_module(fn), [image, GRID], tmp_path / "s.mlpackage", precision="float16"
    )
    package = load_package(path)
    inputs = dict(zip(package.inputs, (np.array(image), np.array(GRID)), strict=True))
    got = package.predict(inputs)["output"]
    assert 10 * np.log10(np.square(wanted).mean() / np.square(wanted - got).mean()) > 55


def test_what_is_no_sample_stays_gathers():
    def squared(x, grid):
        return zeros(x, grid) + zeros(x, grid)[:, ::-1] ** 2 * 0 + border(x * x, grid)

    def wrong(x, grid):  # weights of the next pixel only
        ix, iy = by_pixels(x, grid, False)
        row = mx.clip(mx.floor(iy), 0, 6).astype(mx.int32)
        column = mx.clip(mx.floor(ix), 0, 8).astype(mx.int32)
        batch = mx.arange(2)[:, None, None]
        return (
            x[batch, row, column] * (ix - mx.floor(ix))[..., None]
            + x[batch, row, mx.minimum(column + 1, 8)]
        )

    assert_lowered(squared, IMAGE, GRID)
    assert_lowered(wrong, IMAGE, GRID)
    assert not any(n.op == "Resample" for n in physical_graph(wrong, IMAGE, GRID).nodes)
