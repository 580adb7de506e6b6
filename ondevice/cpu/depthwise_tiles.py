"""Tiles of a depthwise convolution: what each depends on, and the matrix that computes it."""

from __future__ import annotations

from dataclasses import dataclass

import mlx.core as mx

SIDE = 4  # positions of a tile


@dataclass(frozen=True)
class Axis:
    """Height or width of a depthwise convolution, in tiles."""

    length: int
    kernel: int
    stride: int
    padding: int

    @property
    def size(self) -> int:
        """Positions of the result."""
        return (self.length + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def tiles(self) -> int:
        """How many there are."""
        return -(-self.size // SIDE)

    @property
    def step(self) -> int:
        """From one tile to the next, on the map."""
        return SIDE * self.stride

    @property
    def field(self) -> int:
        """Positions of the map behind one tile."""
        return self.step - self.stride + self.kernel

    @property
    def edges(self) -> tuple[int, int]:
        """Zeros before and behind the map, so that all tiles are whole."""
        needed = (self.tiles - 1) * self.step + self.field
        return self.padding, max(0, needed - self.padding - self.length)


def fields(x: mx.array, tall: Axis, wide: Axis, rows: slice) -> mx.array:
    """(B, C, tiles, positions) of a (B, C, H, W) map: these rows of each tile's input."""
    B, C, H, W = x.shape
    tiles = mx.as_strided(
        mx.contiguous(x),
        (B, C, tall.tiles, wide.tiles, rows.stop - rows.start, wide.field),
        (C * H * W, H * W, tall.step * W, wide.step, W, 1),
        rows.start * W,
    )
    return tiles.reshape(B, C, tall.tiles * wide.tiles, -1)


def matrix(kernel: mx.array, tall: Axis, wide: Axis) -> mx.array:
    """(C, field, m * 16) of a (C, m, h, w) kernel: where it is at i - stride * o.

    As a view of the kernel within zeros; input positions go forwards, those of the output
    backwards.
    """
    sy, sx = tall.stride, wide.stride
    edges = [(n, n) for n in (0, 0, (SIDE - 1) * sy, (SIDE - 1) * sx)]
    kernel = mx.pad(kernel, edges)
    C, M, H, W = kernel.shape
    matrix = mx.as_strided(
        kernel,
        (C, tall.field, wide.field, M, SIDE, SIDE),
        (M * H * W, W, 1, H * W, -sy * W, -sx),
        (SIDE - 1) * (sy * W + sx),
    )
    return matrix.reshape(C, tall.field * wide.field, -1)
