"""Faster forms of a few operations where MLX runs on a plain CPU; elsewhere MLX's own.

Outside macOS, MLX's CPU back end computes exp and erf one element at a time, and a depthwise
convolution as one small matrix product a channel. The forms here are made of what is fast
there: long sums and products, copies, and large matrix products. They are as exact as
float32 is and apply to float32 only. On a GPU, on macOS, and while a graph is recorded for
export (``plain``) everything is MLX's own.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from functools import partial, reduce
from typing import cast

import mlx.core as mx
import mlx.nn as nn

from . import chunks, depthwise_tiles, gradients
from .depthwise_tiles import SIDE

Pair = tuple[int, int]
Form = Callable[[mx.array, mx.array, Pair, Pair], mx.array]  # of a convolution

_plain: ContextVar[bool] = ContextVar("plain", default=False)
# Of the whole map, where ``x`` is a chunk of one.
_positions: ContextVar[int] = ContextVar("positions", default=0)


def plain() -> AbstractContextManager[None]:
    """Within it every operation is MLX's own."""
    return chunks.within(_plain, True)


def is_plain_cpu() -> bool:
    """Whether MLX computes on a CPU for which it has no fast operations of its own."""
    return sys.platform != "darwin" and mx.default_device() == mx.cpu


def is_fast(x: mx.array) -> bool:
    """Whether the forms of this module apply, here and now, to ``x``."""
    return x.dtype == mx.float32 and not _plain.get() and is_plain_cpu()


Function = Callable[[mx.array], mx.array]


def _gradient_of(own: Function) -> Callable[[Function], Function]:
    """Give a form the gradient of MLX's operation: its own would overflow, or is not there."""

    def wrap(form: Function) -> Function:
        function = mx.custom_function(form)
        function.vjp(lambda x, cotangent, _: mx.vjp(own, [x], [cotangent])[1][0])
        return cast(Function, function)

    return wrap


# Images and activations -----------------------------------------------------------------


def normalize(x: mx.array, mean: mx.array, std: mx.array) -> mx.array:
    """``(x - mean) / std`` of a (..., W, C) image; ``mean`` and ``std`` are (C,)."""
    if not is_fast(x):
        return (x - mean) / std
    rows = x.flatten(-2)  # three channels are too few to compute them side by side
    mean, std = (mx.tile(channels, x.shape[-2]) for channels in (mean, std))
    return ((rows - mean) / std).reshape(x.shape)


def relu(x: mx.array) -> mx.array:
    """As nn.relu, which MLX would compile: with a C++ compiler, for a second, on a CPU."""
    return mx.maximum(x, 0)


def is_large(x: mx.array, positions: int = 1 << 14) -> bool:
    """Whether a (B, H, W, C) map has so many positions that its errors count.

    Two thirds of what the float32 of FastViTHD's tokens errs by, at 1024 px, comes from its
    first maps. There every operation takes the more exact of its forms.
    """
    return x.ndim == 4 and (_positions.get() or x.shape[1] * x.shape[2]) >= positions


def gelu(x: mx.array) -> mx.array:
    """``x`` times the probability that a standard normal variable is below it."""
    return chunks.by_rows(_GELU[2 if is_large(x) else 8], x) if is_fast(x) else nn.gelu(x)


def standardize(x: mx.array, eps: float) -> mx.array:
    """(B, ...) less the mean of each of B, over its standard deviation."""
    if not is_fast(x):
        return mx.fast.layer_norm(x.reshape(x.shape[0], -1), None, None, eps).reshape(x.shape)
    x = x - _mean(x)  # one long sum, as MLX has it here, loses four digits
    return x * mx.rsqrt(_mean(mx.square(x)) + eps)


def _mean(x: mx.array) -> mx.array:
    """(B, 1, ...) of (B, ...), an axis at a time."""
    for axis in range(x.ndim - 1, 0, -1):
        x = x.mean(axis=axis, keepdims=True)
    return x


POSITIONS = 1 << 10  # of a map, that a thread works on at once


def by_place(form: Function, x: mx.array) -> mx.array:
    """``form``, which treats each position of a (B, H, W, C) map by itself, of ``x``.

    What lies between its operations then stays in the cache of the core that computes it.
    """
    if not (is_fast(x) and chunks.worth_sharing(x.size)):
        return form(x)
    B, H, W, C = x.shape
    rows = x.reshape(1, -1, 1, C)
    height = min(POSITIONS, -(-rows.shape[1] // chunks.thread_count()))
    with chunks.within(_positions, H * W):
        done = chunks.each_chunk(form, zip(chunks.of_length(height, rows, axis=1), strict=True))
    return mx.concatenate(done, axis=1).reshape(B, H, W, -1)


# P(X > a) ** (-1/n) of a standard normal X, by powers of a >= 0: minimax fits on [0, 6] that
# let the GELU err by 6e-8 (n = 8) or 8e-9 (n = 2, half as much time again) of max(|x|, 1).
# Beyond 6 its power overtakes the tail.
_TAIL = {
    8: (
        1.09050775,
        0.108761289,
        0.048825559,
        0.00941479978,
        0.00101025213,
        0.000162761168,
        9.05914762e-05,
        -1.51488342e-05,
        2.95243868e-06,
    ),
    2: (
        1.41421413,
        0.564155459,
        0.338175982,
        0.126244813,
        0.0621020123,
        -0.0333068706,
        0.0884322152,
        -0.101544783,
        0.0879175365,
        -0.0528683253,
        0.0224885736,
        -0.00656105392,
        0.00125828444,
        -0.000142813136,
        7.41030908e-06,
    ),
}


def _gelu(power: int, x: mx.array) -> mx.array:
    """relu(x) - |x| P(X > |x|), the tail P as a polynomial to the power of ``-power``.

    After Hastings, in Abramowitz and Stegun's Handbook of Mathematical Functions, 7.1.28.
    The power counts what the polynomial has rounded off.
    """
    size = mx.abs(x)
    inverse = _polynomial(size, _TAIL[power])
    while power > 1:
        inverse, power = inverse * inverse, power // 2
    return mx.maximum(x, 0) - size / inverse


_GELU = {power: _gradient_of(nn.gelu)(partial(_gelu, power)) for power in _TAIL}


def _polynomial(x: mx.array, coefficients: tuple[float, ...]) -> mx.array:
    """Horner's scheme; the constant comes first."""
    *rest, last = coefficients
    y = x * last + rest.pop()
    while rest:
        y = y * x + rest.pop()
    return y


MIN_ELEMENTS = 1 << 15  # for fewer, one operation of MLX's is as fast as many


def softmax(x: mx.array, *, precise: bool = False) -> mx.array:
    """Exponentials over their sum along the last axis; ``precise``: summed in float32."""
    if not is_fast(x) or x.size < MIN_ELEMENTS:
        return mx.softmax(x, axis=-1, precise=precise)
    return chunks.by_rows(_softmax, x, x.shape[-1])


ADDENDS = 1 << 7  # of a sum in one go: of thousands, each added to the last, digits are lost


def sum_of_products(a: mx.array, b: mx.array) -> mx.array:
    """(..., M, C), summed over N, of (..., N, M) and (..., N, C)."""
    if not is_fast(a):
        return a.swapaxes(-2, -1) @ b
    cuts = list(range(ADDENDS, a.shape[-2], ADDENDS))
    parts = zip(*(mx.split(x, cuts, axis=-2) for x in (a, b)), strict=True)
    return reduce(mx.add, (x.swapaxes(-2, -1) @ y for x, y in parts))


@_gradient_of(lambda x: mx.softmax(x, axis=-1))
def _softmax(x: mx.array) -> mx.array:
    y = _exp(x)
    return y / _sum(y)


def attention(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
    """softmax(q k') v of (B, heads, N, C) arrays.

    Where threads share them, in chunks: of as many scores as stay in the cache until they are
    read the last time. Elsewhere so wide a graph would keep MLX from its other streams.
    """
    B, heads, N, C = q.shape
    if not (is_fast(q) and chunks.worth_sharing(B * heads * N * N)):
        return softmax(q @ k.swapaxes(2, 3)) @ v
    some, rows = max(1, chunks.SIZE // (N * N)), max(1, chunks.SIZE // N)
    by_heads = (chunks.of_length(some, x.reshape(B * heads, N, C)) for x in (q, k, v))
    parts = (
        (queries, keys, values)
        for all_queries, keys, values in zip(*by_heads, strict=True)
        for queries in chunks.of_length(rows, all_queries, axis=1)
    )
    done = [y.reshape(-1, C) for y in chunks.each_chunk(_attend, parts)]
    return mx.concatenate(done).reshape(q.shape)


def _attend(q: mx.array, k: mx.array, v: mx.array) -> mx.array:
    y = _exp(q @ k.swapaxes(1, 2))
    return (y @ v) / _sum(y)


def _sum(x: mx.array) -> mx.array:
    """Of each row: a product is the fastest."""
    return x @ mx.ones((x.shape[-1], 1))


def _largest(x: mx.array) -> mx.array:
    """Of each row. MLX compares a row's elements one by one, but rows side by side."""
    if x.shape[-1] >= 256 and x.shape[-1] % 16 == 0:
        x = mx.unflatten(x, -1, (-1, 16)).max(axis=-2)
    return x.max(axis=-1, keepdims=True)


# 4 ** h = 1 + 2 h / (g - h) on [-1/4, 1/4], where g = h coth(h log(2)), by powers of h * h:
# a minimax fit, relative error 3e-10. A quotient takes fewer steps than one polynomial.
_COTH = (1.442695, 0.23104791, -0.0073636305)
_ROUND = 1.5 * 2.0**22 + 0.5  # added to a float32, leaves the nearest half in its low bits


def _exp(x: mx.array) -> mx.array:
    """exp of each element less the largest of its row, but at least 2 ** -126.

    4 to the power of the nearest half goes straight into the exponent's bits of 4 to the
    power of the rest: of half of that, which is a step less, and so they count one more.
    """
    x = mx.maximum((x - _largest(x)) * (math.log2(math.e) / 2), -63)
    halves = x + _ROUND
    h = x - (halves - _ROUND)
    y = h / (_polynomial(h * h, _COTH) - h) + 0.5
    return mx.view(mx.view(y, mx.int32) + (mx.view(halves, mx.int32) << 23), mx.float32)


# Convolutions: maps are (B, H, W, C), kernels (out, h, w, C / groups), as MLX has them ----


def conv2d(
    x: mx.array,
    weight: mx.array,
    stride: Pair,
    padding: Pair,
    dilation: int | Pair = 1,
    groups: int = 1,
) -> mx.array:
    """A convolution in the form that suits its kernel and the size of the map."""
    has_form = is_fast(x) and dilation in (1, (1, 1)) and 1 in (groups, weight.shape[-1])
    if not has_form:
        return mx.conv2d(x, weight, stride, padding, dilation, groups)
    form = _dense if groups == 1 else _depthwise
    if not gradients.has_gradient(weight, padding):
        return form(x, weight, stride, padding)
    return _with_gradient(form, stride, padding)(x, weight)


def _with_gradient(form: Form, stride: Pair, padding: Pair) -> Callable[..., mx.array]:
    def backward(given: list[mx.array], dy: mx.array, _: mx.array) -> tuple[mx.array, mx.array]:
        x, weight = given
        return gradients.convolution(x, weight, dy, stride, padding, _windows, conv2d)

    function = mx.custom_function(lambda x, weight: form(x, weight, stride, padding))
    function.vjp(backward)
    return cast(Callable[..., mx.array], function)


def _dense(x: mx.array, weight: mx.array, stride: Pair, padding: Pair) -> mx.array:
    """A matrix product of the kernel with what each position of the result depends on."""
    out, kh, kw, C = weight.shape
    columns = weight.reshape(out, -1)
    if (kh, kw, stride, padding) == (1, 1, (1, 1), (0, 0)):
        exact = is_large(x, EXACT_PRODUCT)
        return _product(x.reshape(-1, C), columns, exact=exact).reshape(*x.shape[:-1], out)
    windows = _windows(x, weight, stride, padding)
    B, H, W = windows.shape[:3]
    if kw * C < MIN_RUN:
        # MLX's own copy is the faster one of so few elements at a time, and OpenBLAS has a
        # product for small matrices: those of one row of the map.
        rows = mx.contiguous(windows).reshape(B * H, W, -1)
        return (rows @ columns.T[None]).reshape(B, H, W, out)
    return _product(_copy(windows).reshape(B * H * W, -1), columns).reshape(B, H, W, out)


MIN_RUN = 16  # elements side by side: an image has fewer, a map more
TERMS = 64  # of a short sum
EXACT_PRODUCT = 1 << 12  # positions: of 64 x 64 a product's form still counts, a GELU's no more


def _product(rows: mx.array, columns: mx.array, *, exact: bool = False) -> mx.array:
    """rows @ columns.T; ``exact``: a sum of short sums, whose roundings are smaller."""
    depth = rows.shape[1]
    parts = -(-depth // TERMS) if exact else 1
    if parts == 1:
        return rows @ columns.T
    first, *rest = zip(
        map(_copy, chunks.equal(parts, rows, axis=1)),
        chunks.equal(parts, columns, axis=1),
        strict=True,
    )
    return reduce(lambda y, part: mx.addmm(y, part[0], part[1].T), rest, first[0] @ first[1].T)


_ONE = mx.array(1.0)


def _copy(view: mx.array) -> mx.array:
    """Times one is a copy at twice the speed of a copy, which a product else takes."""
    return view * _ONE


def _windows(x: mx.array, weight: mx.array, stride: Pair, padding: Pair) -> mx.array:
    """(B, H, W, kh, kw, C) view: what each position of the result depends on."""
    (_, kh, kw, _), (sy, sx), (py, px) = weight.shape, stride, padding
    if py or px:
        x = mx.pad(x, [(0, 0), (py, py), (px, px), (0, 0)])
    x = mx.contiguous(x)
    B, H, W, C = x.shape
    size = (H - kh) // sy + 1, (W - kw) // sx + 1
    return mx.as_strided(x, (B, *size, kh, kw, C), (H * W * C, sy * W * C, sx * C, W * C, C, 1))


def _depthwise(x: mx.array, weight: mx.array, stride: Pair, padding: Pair) -> mx.array:
    """In the form that suits it; threads that share it have as many channels each."""
    form, threads = _depthwise_form(x, weight, stride, padding), chunks.thread_count()
    if x.shape[-1] % threads or not chunks.worth_sharing(x.size):
        return form(x, weight, stride, padding)
    parts = zip(chunks.equal(threads, x, axis=-1), chunks.equal(threads, weight), strict=True)
    done = chunks.each_chunk(lambda x, w: form(x, w, stride, padding), parts)
    return mx.concatenate(done, axis=-1)


def _depthwise_form(x: mx.array, weight: mx.array, stride: Pair, padding: Pair) -> Form:
    """What is fastest for a kernel of this size and a map of this size."""
    (B, H, W, C), (out, kh, kw, _) = x.shape, weight.shape
    same = (out, stride) == (C, (1, 1)) and padding == (kh // 2, kw // 2) and kh * kw % 2
    if kh * kw < 25:
        whole_tiles = same and H % SIDE == W % SIDE == 0 and W >= 16 and not is_large(x)
        return _depthwise_tiles if whole_tiles else _depthwise_windows
    if same and H * W <= 64 and B >= 4:
        return _depthwise_whole
    positions = B * H * W // (stride[0] * stride[1])
    return _depthwise_tiles if positions >= 256 else _depthwise_windows


def _depthwise_windows(x: mx.array, weight: mx.array, stride: Pair, padding: Pair) -> mx.array:
    """Windows times kernel, then summed."""
    if len(weight) > x.shape[-1]:
        x = mx.repeat(x, len(weight) // x.shape[-1], axis=-1)
    kernel = mx.contiguous(weight[..., 0].transpose(1, 2, 0))
    return (_windows(x, weight, stride, padding) * kernel).sum(axis=(3, 4))


def _depthwise_whole(x: mx.array, weight: mx.array, stride: Pair, padding: Pair) -> mx.array:
    """A channel of a small map is one matrix product, its kernel at all positions at once."""
    (B, H, W, C), (_, kh, kw, _) = x.shape, weight.shape
    kernel = mx.pad(weight[..., 0], [(0, 0), (H - 1, H - 1), (W - 1, W - 1)])
    tall, wide = kernel.shape[1:]
    middle = (H - 1 + kh // 2) * wide + W - 1 + kw // 2
    matrix = mx.as_strided(  # input positions go forwards, output positions backwards
        kernel, (C, H, W, H, W), (tall * wide, wide, 1, -wide, -1), middle
    )
    channels = mx.contiguous(x.reshape(B, H * W, C).transpose(2, 0, 1))
    y = channels @ matrix.reshape(C, H * W, H * W)
    return mx.contiguous(y.transpose(1, 2, 0)).reshape(B, H, W, C)


def _depthwise_tiles(x: mx.array, weight: mx.array, stride: Pair, padding: Pair) -> mx.array:
    """A channel's tiles of 4 x 4 positions are one matrix product with what they depend on.

    The matrix has the kernel at 16 positions and zeros elsewhere, as many as not for a large
    kernel: still a third of the time of products and sums one by one. Of a large map it is
    a product for every two rows of what a tile depends on, then their sum.
    """
    tall, wide = (
        depthwise_tiles.Axis(*lengths)
        for lengths in zip(x.shape[1:3], weight.shape[1:3], stride, padding, strict=True)
    )
    height = 2 if is_large(x) else tall.field
    x = mx.pad(x.transpose(0, 3, 1, 2), [(0, 0), (0, 0), tall.edges, wide.edges])
    matrix = depthwise_tiles.matrix(
        weight.reshape(x.shape[1], -1, *weight.shape[1:3]), tall, wide
    )
    bands = (slice(i, min(i + height, tall.field)) for i in range(0, tall.field, height))
    y = reduce(
        mx.add,
        (
            depthwise_tiles.fields(x, tall, wide, rows)
            @ matrix[:, rows.start * wide.field : rows.stop * wide.field]
            for rows in bands
        ),
    )
    B, C = x.shape[:2]
    y = y.reshape(B, C, tall.tiles, wide.tiles, -1, SIDE, SIDE)
    y = y.transpose(0, 2, 5, 3, 6, 1, 4)
    y = y.reshape(B, tall.tiles * SIDE, wide.tiles * SIDE, -1)
    return y[:, : tall.size, : wide.size]
