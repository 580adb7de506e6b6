"""Gradients of convolutions on a plain CPU, of what is fast there: products, sums, copies.

MLX's gradient of a strided view adds up its elements one at a time, which takes ten times as
long as the convolution itself.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from itertools import product

import mlx.core as mx

from .depthwise_tiles import SIDE, Axis, fields

Pair = tuple[int, int]
Convolution = Callable[..., mx.array]  # x, weight, stride, padding, dilation, groups

MAX_TAPS = 9  # of a depthwise kernel: with more, its windows are too many copies of the map


def has_gradient(weight: mx.array, padding: Pair) -> bool:
    """Whether ``convolution`` is for this one."""
    _, kh, kw, _ = weight.shape
    return padding[0] < kh and padding[1] < kw


def convolution(
    x: mx.array,
    weight: mx.array,
    dy: mx.array,
    stride: Pair,
    padding: Pair,
    windows: Callable[[mx.array, mx.array, Pair, Pair], mx.array],
    conv2d: Convolution,
) -> tuple[mx.array, mx.array]:
    """Of a (B, H, W, C) map and of the kernel, for (B, H', W', out) ``dy``.

    The kernel is dense, (out, h, w, C), or depthwise, (C m, h, w, 1). ``windows`` gives the (B,
    H', W', h, w, C) view of what each position of the result depends on.
    """
    C, (out, kh, kw, _) = x.shape[-1], weight.shape
    depthwise = weight.shape[-1] == 1 and C > 1
    if not depthwise:
        rows = windows(x, weight, stride, padding).reshape(-1, weight[0].size)
        dw = (dy.reshape(len(rows), -1).T @ rows).reshape(weight.shape)
    elif kh * kw <= MAX_TAPS and out == C:
        seen = windows(x, weight, stride, padding)
        dw = _summed(seen * dy[..., None, None, :]).transpose(2, 0, 1)[..., None]
    else:
        dw = _of_tiles(x, weight, dy, stride, padding)
    if stride == (1, 1):
        dx = _stride_one(weight, dy, padding, conv2d, channels=C if depthwise else 0)
    else:
        dx = _strided(x, weight, dy, stride, padding, depthwise=depthwise)
    return dx, dw


def _of_tiles(
    x: mx.array, weight: mx.array, dy: mx.array, stride: Pair, padding: Pair
) -> mx.array:
    """Of a depthwise kernel: what each tile's 4 x 4 results owe to all that they depend on is
    one matrix product a channel; a tap has its share in 16 places of it."""
    (B, H, W, C), (_, kh, kw, _), (sy, sx) = x.shape, weight.shape, stride
    tall, wide = (
        Axis(*lengths) for lengths in zip((H, W), (kh, kw), stride, padding, strict=True)
    )
    x = mx.pad(x.transpose(0, 3, 1, 2), [(0, 0), (0, 0), tall.edges, wide.edges])
    seen = fields(x, tall, wide, slice(0, tall.field)).transpose(1, 3, 0, 2)
    below, right = tall.tiles * SIDE - tall.size, wide.tiles * SIDE - wide.size
    dy = mx.pad(dy, [(0, 0), (0, below), (0, right), (0, 0)])
    dy = dy.reshape(B, tall.tiles, SIDE, wide.tiles, SIDE, C, -1)
    tiles = dy.transpose(5, 0, 1, 3, 6, 2, 4).reshape(C, B * tall.tiles * wide.tiles, -1)
    owed = seen.reshape(C, -1, tiles.shape[1]) @ tiles
    owed = owed.reshape(C, tall.field, wide.field, -1, SIDE, SIDE)
    parts = (
        owed[:, sy * i : sy * i + kh, sx * j : sx * j + kw, :, i, j]
        for i, j in product(range(SIDE), repeat=2)
    )
    return reduce(mx.add, parts).transpose(0, 3, 1, 2).reshape(weight.shape)


def _summed(x: mx.array) -> mx.array:
    """Over (B, H, W, ...), each axis by itself: a sum of short sums is the more exact."""
    return x.sum(axis=2).sum(axis=1).sum(axis=0)


def _stride_one(
    weight: mx.array, dy: mx.array, padding: Pair, conv2d: Convolution, *, channels: int
) -> mx.array:
    """A convolution itself, with the kernel turned round; depthwise of so many ``channels``."""
    _, kh, kw, _ = weight.shape
    turned = weight[:, ::-1, ::-1]
    edges = kh - 1 - padding[0], kw - 1 - padding[1]
    if not channels:
        turned = mx.contiguous(turned.transpose(3, 1, 2, 0))
        return conv2d(dy, turned, (1, 1), edges)
    multiples = len(weight) // channels
    parts = (
        conv2d(
            dy[..., i::multiples],
            mx.contiguous(turned[i::multiples]),
            (1, 1),
            edges,
            1,
            channels,
        )
        for i in range(multiples)
    )
    return reduce(mx.add, parts)


def _strided(
    x: mx.array, weight: mx.array, dy: mx.array, stride: Pair, padding: Pair, *, depthwise: bool
) -> mx.array:
    """What each tap gives back, at its positions: those of one remainder are side by side."""
    (B, H, W, C), (_, kh, kw, _), (sy, sx) = x.shape, weight.shape, stride
    _, h, w, _ = dy.shape
    tall, wide = h + (kh - 1) // sy, w + (kw - 1) // sx
    phases: dict[Pair, list[mx.array]] = {}
    for i, j in product(range(kh), range(kw)):
        tap = weight[:, i, j]
        given = (dy * tap[:, 0]).reshape(B, h, w, C, -1).sum(axis=-1) if depthwise else dy @ tap
        before, left = i // sy, j // sx
        edges = [(before, tall - h - before), (left, wide - w - left)]
        placed = mx.pad(given, [(0, 0), *edges, (0, 0)])
        phases.setdefault((i % sy, j % sx), []).append(placed)
    zero = mx.zeros((B, tall, wide, C), x.dtype)
    rows = [
        mx.stack([reduce(mx.add, phases.get((i, j), [zero])) for j in range(sx)], axis=3)
        for i in range(sy)
    ]
    whole = mx.stack(rows, axis=2).reshape(B, tall * sy, wide * sx, C)
    bottom, right = (
        max(0, n + p - m)
        for n, p, m in zip((H, W), padding, (tall * sy, wide * sx), strict=True)
    )
    whole = mx.pad(whole, [(0, 0), (0, bottom), (0, right), (0, 0)])
    return whole[:, padding[0] : padding[0] + H, padding[1] : padding[1] + W]
