"""Convolutions and pools, in one to three spatial dimensions."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any

import numpy as np

from .registry import CACHED, Array, evaluates, ints

Pads = list[tuple[int, int]]


def _pads(
    pad_type: str, pad: Any, size: tuple[int, ...], kernel: tuple[int, ...], strides: Any
) -> Pads:
    """Before and after each spatial axis; ``kernel`` is the dilated one."""
    if pad_type == "valid":
        return [(0, 0)] * len(size)
    if pad_type == "custom":
        flat = ints(pad)
        return list(zip(flat[::2], flat[1::2], strict=True))
    totals = [
        max((-(-n // s) - 1) * s + k - n, 0)
        for n, k, s in zip(size, kernel, ints(strides), strict=True)
    ]
    halves = [(t // 2, t - t // 2) for t in totals]
    return [(b, a) for a, b in halves] if pad_type == "same_lower" else halves


def _padded(x: Array, pads: Pads, value: float = 0.0) -> Array:
    """``np.pad`` with less ceremony: it is called for every convolution."""
    if not any(map(any, pads)):
        return x
    shape = [n + b + a for n, (b, a) in zip(x.shape[2:], pads, strict=True)]
    padded = np.full((*x.shape[:2], *shape), value, x.dtype)
    padded[_part(x.shape[2:], pads)] = x
    return padded


def _part(sizes: tuple[int, ...], pads: Pads) -> Any:
    return (..., *(slice(b, b + n) for n, (b, _) in zip(sizes, pads, strict=True)))


def _shifts(
    out: tuple[int, ...], kernel: tuple[int, ...], strides: Any, dilations: Any
) -> list[tuple[Any, Any]]:
    """For each position in the kernel: the part of the padded input that it meets."""
    return [
        (
            position,
            (
                ...,
                *(
                    slice(i * d, i * d + (n - 1) * s + 1, s)
                    for i, n, s, d in zip(position, out, strides, dilations, strict=True)
                ),
            ),
        )
        for position in product(*map(range, kernel))
    ]


def _depthwise(x: Array, weight: Array, out: tuple[int, ...], strides: Any, dil: Any) -> Array:
    """One multiply-add over the map for each position in the kernel, cache-sized at a time."""
    B, C = x.shape[:2]
    kernel = weight.shape[2:]
    per_channel = weight.reshape(C, -1, *kernel)  # each channel may give several
    y = np.zeros((B, C, per_channel.shape[1], *out), np.float32)
    shifts = _shifts(out, kernel, strides, dil)
    few = max(1, CACHED // (B * per_channel.shape[1] * prod(out)))
    for start in range(0, C, few):
        chunk = slice(start, start + few)
        _add_shifted(y[:, chunk], x[:, chunk], per_channel[chunk], shifts)
    return y.reshape(B, -1, *out)


def _add_shifted(y: Array, x: Array, weight: Array, shifts: list[tuple[Any, Any]]) -> None:
    term = np.empty_like(y)
    for position, part in shifts:
        w = weight[:, :, *position].reshape(*weight.shape[:2], *[1] * len(position))
        np.multiply(x[part][:, :, None], w, out=term)
        y += term


def _columns(x: Array, kernel: tuple[int, ...], out: tuple[int, ...], s: Any, d: Any) -> Array:
    """Patches as a view: (B, C, *kernel, *out)."""
    steps = x.strides[2:]
    strides = (
        *x.strides[:2],
        *(a * b for a, b in zip(steps, d, strict=True)),
        *(a * b for a, b in zip(steps, s, strict=True)),
    )
    shape = (*x.shape[:2], *kernel, *out)
    return np.lib.stride_tricks.as_strided(x, shape, strides, writeable=False)


def _dense(
    x: Array, weight: Array, out: tuple[int, ...], strides: Any, dil: Any, groups: int
) -> Array:
    """Patches as columns, then one matrix product for each group."""
    B, C = x.shape[:2]
    O, kernel = weight.shape[0], weight.shape[2:]  # noqa: E741
    columns = _columns(x, kernel, out, strides, dil)
    columns = columns.reshape(B, groups, C // groups * prod(kernel), prod(out))
    y: Array = weight.reshape(groups, O // groups, -1) @ columns
    return y.reshape(B, O, *out)


@evaluates("conv")
def conv(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    strides: Any = (1, 1),
    pad_type: str = "valid",
    pad: Any = (0, 0, 0, 0),
    dilations: Any = (1, 1),
    groups: int = 1,
) -> Array:
    strides, dilations, groups = ints(strides), ints(dilations), int(groups)
    kernel = tuple((k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True))
    x = _padded(x, _pads(pad_type, pad, x.shape[2:], kernel, strides))
    out = tuple((n - k) // s + 1 for n, k, s in zip(x.shape[2:], kernel, strides, strict=True))
    if groups == x.shape[1] and weight.shape[1] == 1 and groups > 1:
        y = _depthwise(x, weight, out, strides, dilations)
    else:
        y = _dense(x, weight, out, strides, dilations, groups)
    if bias is not None:
        y += bias.reshape(-1, *[1] * len(out))
    return y


@evaluates("conv_transpose")
def conv_transpose(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    pad: Any = None,
    output_shape: Any = None,
    pad_type: str = "valid",
    strides: Any = (1, 1),
    dilations: Any = (1, 1),
    groups: int = 1,
) -> Array:
    strides, dilations, groups = ints(strides), ints(dilations), int(groups)
    B, C, *size = x.shape
    kernel = weight.shape[2:]
    full = [
        (n - 1) * s + (k - 1) * d + 1
        for n, s, k, d in zip(size, strides, kernel, dilations, strict=True)
    ]
    w = weight.reshape(groups, C // groups, -1).swapaxes(1, 2)
    columns = w @ x.reshape(B, groups, C // groups, -1)
    columns = columns.reshape(B, groups * weight.shape[1], *kernel, *size)
    y = np.zeros((B, columns.shape[1], *full), np.float32)
    for position, part in _shifts(tuple(size), kernel, strides, dilations):
        y[part] += columns[:, :, *position]
    wanted = None if output_shape is None else ints(output_shape)[2:]
    y = _cropped(y, _crops(pad_type, pad, full, size, strides), wanted)
    return y if bias is None else y + bias.reshape(-1, *[1] * len(size))


def _crops(pad_type: str, pad: Any, full: list[int], size: list[int], strides: Any) -> Pads:
    if pad_type == "custom":
        return _pads("custom", pad, (), (), ())
    if pad_type == "valid":
        return [(0, 0)] * len(full)
    totals = [f - n * s for f, n, s in zip(full, size, strides, strict=True)]
    return [(t // 2, t - t // 2) for t in totals]


def _cropped(y: Array, crops: Pads, wanted: tuple[int, ...] | None) -> Array:
    """``wanted`` sizes may reach past the last full stride: zeros then."""
    sizes = wanted or tuple(n - b - a for n, (b, a) in zip(y.shape[2:], crops, strict=True))
    short = [max(b + n - f, 0) for f, n, (b, _) in zip(y.shape[2:], sizes, crops, strict=True)]
    y = _padded(y, [(0, s) for s in short])
    return y[_part(sizes, crops)]


def _windows(
    x: Array, kernel: Any, strides: Any, pad_type: str, pad: Any, ceil_mode: bool
) -> tuple[tuple[int, ...], Pads, Pads]:
    """A pool's output size, its padding, and its padding with what ceil mode adds."""
    size = x.shape[2:]
    pads = _pads(pad_type, pad, size, kernel, strides)
    out, extended = [], []
    for n, k, s, (before, after) in zip(size, kernel, strides, pads, strict=True):
        last = n + before + after - k
        count = (-(-last // s) if ceil_mode else last // s) + 1
        if ceil_mode and before + after and (count - 1) * s >= n + before:
            count -= 1  # as PyTorch: no window may start in the padding after
        out.append(count)
        extended.append((before, max(after, (count - 1) * s + k - n - before)))
    return tuple(out), pads, extended


def _pool(
    x: Array, combine: Any, value: float, out: tuple[int, ...], kernel: Any, s: Any, pads: Pads
) -> Array:
    x = _padded(x, pads, value)
    (_, first), *rest = _shifts(out, kernel, s, [1] * len(out))
    y = x[first].copy()
    for _, part in rest:
        combine(y, x[part], out=y)
    return y


@evaluates("max_pool", exact=True)
def max_pool(
    x: Array, kernel_sizes: Any, strides: Any, pad_type: str, pad: Any, ceil_mode: bool = False
) -> Array:
    kernel, s = ints(kernel_sizes), ints(strides)
    out, _, pads = _windows(x, kernel, s, pad_type, pad, bool(ceil_mode))
    return _pool(x, np.maximum, -np.inf, out, kernel, s, pads)


@evaluates("avg_pool")
def avg_pool(
    x: Array,
    kernel_sizes: Any,
    strides: Any,
    pad_type: str,
    pad: Any,
    exclude_padding_from_average: bool = False,
    ceil_mode: bool = False,
) -> Array:
    kernel, s = ints(kernel_sizes), ints(strides)
    out, pads, extended = _windows(x, kernel, s, pad_type, pad, bool(ceil_mode))
    counted = np.ones((1, 1, *x.shape[2:]), np.float32)
    if not exclude_padding_from_average:  # padding counts; what ceil mode adds never does
        counted = _padded(counted, pads, 1.0)
        missing = [(0, e - a) for (_, e), (_, a) in zip(extended, pads, strict=True)]
    else:
        missing = extended
    count = _pool(counted, np.add, 0.0, out, kernel, s, missing)
    y: Array = _pool(x, np.add, 0.0, out, kernel, s, extended) / count
    return y


@evaluates("l2_pool")
def l2_pool(
    x: Array, kernel_sizes: Any, strides: Any, pad_type: str, pad: Any, ceil_mode: bool = False
) -> Array:
    kernel, s = ints(kernel_sizes), ints(strides)
    out, _, pads = _windows(x, kernel, s, pad_type, pad, bool(ceil_mode))
    y: Array = np.sqrt(_pool(np.square(x), np.add, 0.0, out, kernel, s, pads))
    return y
