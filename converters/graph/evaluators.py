"""How MLX computes the operations of its traces that have no function of that name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import mlx.core as mx
import numpy as np

from ondevice.cpu import blas, kernels

Fn = Callable[..., Any]


def slice_(x: mx.array, start: Any, stop: Any, step: Any) -> mx.array:
    """As ``x[start:stop:step]`` along each axis."""
    return x[tuple(map(slice, start, stop, step))]


def pad(x: mx.array, value: mx.array, axes: Any, low: Any, high: Any) -> mx.array:
    """A constant around ``x``, along ``axes``."""
    widths = [(0, 0)] * x.ndim
    for axis, lo, hi in zip(axes, low, high, strict=True):
        widths[axis] = (lo, hi)
    return mx.pad(x, widths, constant_values=value)


def edge_pad(x: mx.array, _: mx.array, axes: Any, low: Any, high: Any) -> mx.array:
    widths = [(0, 0)] * x.ndim
    for axis, lo, hi in zip(axes, low, high, strict=True):
        widths[axis] = (lo, hi)
    return mx.pad(x, widths, mode="edge")


def gather(x: mx.array, *rest: Any) -> mx.array:
    """As MLX's Gather: slices of ``sizes`` from where the indices say.

    In the shape of the output: an index that was a scalar has an axis by now.
    """
    *indices, axes, sizes, output = rest
    if all(sizes[a] == (1 if a in axes else n) for a, n in enumerate(x.shape)):
        rest_axes = [axis for axis in range(x.ndim) if axis not in axes]
        return x.transpose(*axes, *rest_axes)[tuple(indices)].reshape(output.shape)
    grid = indices[0].shape
    return x[_elements(x, indices, axes, (*grid, *sizes))].reshape(output.shape)


def convolution(x: mx.array, w: mx.array, *rest: Any) -> mx.array:
    """NHWC ``x`` with an (out, H, W, in / groups) kernel."""
    *bias, stride, low, high, dilation, input_dilation, groups, flip = rest
    if x.ndim == 4 and low == high and not flip and set(input_dilation) == {1}:
        y = kernels.conv2d(x, w, tuple(stride), tuple(low), tuple(dilation), groups)
    else:
        y = mx.conv_general(
            x, w, stride, (list(low), list(high)), dilation, input_dilation, groups, flip
        )
    return y + bias[0] if bias else y


def product(a: mx.array, b: mx.array) -> mx.array:
    """A matrix product; by numpy where MLX would take forty times as long."""
    if not (kernels.is_plain_cpu() and blas.is_slow()) or a.dtype != mx.float32:
        return a @ b
    return cast(mx.array, _by_numpy(a, b))


@mx.custom_function  # its values leave MLX, which would take the gradient for 0
def _by_numpy(a: mx.array, b: mx.array) -> mx.array:
    return mx.array(np.asarray(a) @ np.asarray(b))


@_by_numpy.vjp
def _gradients(inputs: list[mx.array], gradient: mx.array, _: mx.array) -> tuple[mx.array, ...]:
    return tuple(mx.vjp(mx.matmul, [*inputs], [gradient])[1])


def linear(x: mx.array, w: mx.array, *bias: mx.array) -> mx.array:
    """(..., in) to (..., out) with an (out, in) weight."""
    y = product(x, w.T)
    return y + bias[0] if bias else y


def attention(q: mx.array, k: mx.array, v: mx.array, *mask: mx.array) -> mx.array:
    """softmax(q k^T / sqrt(dim)) v, with a mask of truths or of scores."""
    scores = product(q, k.swapaxes(-1, -2)) * q.shape[-1] ** -0.5
    for seen in mask:
        hides = seen.dtype == mx.bool_
        scores = mx.where(seen, scores, -mx.inf) if hides else scores + seen
    return product(mx.softmax(scores, axis=-1), v)


def layer_norm(x: mx.array, *rest: Any) -> mx.array:
    """Over ``axes``, with a scale and shift if given."""
    *affine, axes, eps = rest
    mean = x.mean(axes, keepdims=True)
    y = (x - mean) * mx.rsqrt((x - mean).square().mean(axes, keepdims=True) + eps)
    return y * affine[0] + affine[1] if affine else y


def pool(x: mx.array, kind: str, kernel: Any, stride: Any, low: Any, high: Any) -> mx.array:
    """The maximum, mean or sum of NHWC windows."""
    fill = -mx.inf if kind == "max" else 0
    x = mx.pad(x, [(0, 0), *zip(low, high, strict=True), (0, 0)], constant_values=fill)
    B, H, W, C = x.shape
    (kh, kw), (sh, sw) = kernel, stride
    shape = (B, (H - kh) // sh + 1, (W - kw) // sw + 1, kh, kw, C)
    windows = mx.as_strided(x, shape, (H * W * C, sh * W * C, sw * C, W * C, C, 1))
    return REDUCTIONS[kind](windows, axis=(3, 4))


# What MLX calls by a number is called by its name here: in MLX's order.
REDUCTIONS: dict[str, Fn] = {
    "all": mx.all, "any": mx.any, "sum": mx.sum, "prod": mx.prod,
    "min": mx.min, "max": mx.max, "mean": mx.mean,
}  # fmt: skip
SCANS: dict[str, Fn] = {
    "max": mx.cummax, "min": mx.cummin, "sum": mx.cumsum, "prod": mx.cumprod,
    "logaddexp": mx.logcumsumexp,
}  # fmt: skip
ARG_REDUCTIONS: dict[str, Fn] = {"min": mx.argmin, "max": mx.argmax}
LINEAR_REDUCTIONS = frozenset({"sum", "min", "max", "mean"})
LOGARITHMS: dict[str, Fn] = {"2": mx.log2, "10": mx.log10, "e": mx.log}


def reduce(x: mx.array, kind: str, axes: Any, keep: bool = True) -> mx.array:
    if not x.size:  # MLX may wait for ever
        return mx.array(getattr(np, kind)(np.array(x), axis=tuple(axes), keepdims=keep))
    return REDUCTIONS[kind](x, axis=axes, keepdims=keep)


def reshaped(x: mx.array, *rest: Any) -> mx.array:
    return x.reshape(rest[-1].shape)


def broadcast(x: mx.array, *rest: Any) -> mx.array:
    """To the shape of the output."""
    return mx.broadcast_to(x, rest[-1].shape)


# -- writing to a part of an array


def slice_update(x: mx.array, y: mx.array, kind: str, start: Any, _: Any, step: Any) -> Any:
    where = tuple(map(_range, start, y.shape, step, x.shape))
    if kind != "none":
        return _WRITES[kind](x.at[where], y)
    x = x.astype(x.dtype)
    x[where] = y
    return x


def _range(start: int, count: int, step: int, size: int) -> slice:
    first = start % size if size else 0
    stop = first + (count - 1) * step + (1 if step > 0 else -1)
    return slice(first, None if stop < 0 else stop, step)


def scatter(x: mx.array, *rest: Any) -> mx.array:
    """``x`` with blocks ``y[i]`` written where ``indices[i]`` say along ``axes``."""
    *indices, y, kind, axes = rest
    where = _elements(x, indices, axes, y.shape)
    if kind != "none":
        return _WRITES[kind](x.at[where], y)
    x = x.astype(x.dtype)
    x[where] = y
    return x


def scatter_rows(x: mx.array, *rest: Any) -> mx.array:
    """``x[index[i], …] = y[i]`` for one index array a written axis."""
    *indices, y, kind, axes = rest
    order = [*axes, *(a for a in range(x.ndim) if a not in axes)]
    rows = x.transpose(order)
    if kind == "none":
        rows[tuple(indices)] = y
    else:
        rows = _WRITES[kind](rows.at[tuple(indices)], y)
    return rows.transpose([order.index(a) for a in range(x.ndim)])


def _elements(x: mx.array, indices: Any, axes: Any, shape: Any) -> tuple[mx.array, ...]:
    """The index along each axis of ``x`` of every element of the blocks: of this shape."""
    places = []
    for axis, size in enumerate(shape[-x.ndim :]):
        at = mx.arange(size).reshape([-1 if a == axis else 1 for a in range(x.ndim)])
        if axis in axes:
            index = indices[tuple(axes).index(axis)].astype(mx.int32)
            index = mx.where(index < 0, index + x.shape[axis], index)
            at = at + index.reshape(*index.shape, *[1] * x.ndim)
        places.append(mx.broadcast_to(at, shape))
    return tuple(places)


def scatter_axis(x: mx.array, index: mx.array, y: mx.array, kind: str, axis: int) -> mx.array:
    if kind == "none":
        return mx.put_along_axis(x, index, y, axis=axis)
    shape = [[n if a == b else 1 for b in range(x.ndim)] for a, n in enumerate(index.shape)]
    where = [mx.arange(n).reshape(s) for n, s in zip(index.shape, shape, strict=True)]
    where[axis] = index
    return x.at[tuple(mx.broadcast_to(w, index.shape) for w in where)].add(y)


def masked_scatter(x: mx.array, mask: mx.array, y: mx.array) -> mx.array:
    """The elements that ``mask`` names are ``y``'s, in order, for each of the first axis."""
    hit = mask.reshape(mask.shape[0], -1)
    at = mx.maximum(mx.cumsum(hit.astype(mx.int32), axis=1) - 1, 0)
    taken = mx.take_along_axis(y.reshape(y.shape[0], -1), at, axis=1)
    return mx.where(mask, taken.reshape(x.shape), x)


_WRITES: dict[str, Fn] = {
    "max": lambda at, y: at.maximum(y),
    "min": lambda at, y: at.minimum(y),
    "sum": lambda at, y: at.add(y),
    "prod": lambda at, y: at.multiply(y),
}


def dynamic_slice(x: mx.array, start: mx.array, axes: Any, size: Any) -> mx.array:
    return mx.slice(x, start, axes, size)


# -- what is computed once, of constants


def bits(*rest: Any) -> mx.array:
    """MLX's counter-based random numbers (Threefry 2x32) of a key or an array of keys."""
    key, shape, width = rest
    keys = np.array(key).reshape(-1, 2)
    count = int(np.prod(shape)) // len(keys) * width
    words = np.stack([_words(k, -(-count // 4)) for k in keys])
    found = words.view(np.uint8)[:, :count].copy()
    return mx.array(found.view(f"u{width}").reshape(shape))


def _words(key: Any, count: int) -> Any:
    """``count`` 32-bit words of one key: the counters of both halves are hashed together."""
    half = count // 2
    odd = count % 2
    first, second = _threefry(key, np.arange(half), np.arange(half) + half + odd)
    middle = _threefry(key, np.array([half]), np.array([0]))[0][:odd]
    return np.concatenate([first, middle, second])


_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def _threefry(key: Any, first: Any, second: Any) -> tuple[Any, Any]:
    x, y = first.astype(np.uint32), second.astype(np.uint32)
    keys = [np.uint32(key[0]), np.uint32(key[1]), key[0] ^ key[1] ^ np.uint32(0x1BD11BDA)]
    with np.errstate(over="ignore"):
        x, y = x + keys[0], y + keys[1]
        for round_ in range(5):
            for by in _ROTATIONS[round_ % 2]:
                x = x + y
                y = (y << np.uint32(by)) | (y >> np.uint32(32 - by))
                y = y ^ x
            x = x + keys[(round_ + 1) % 3]
            y = y + keys[(round_ + 2) % 3] + np.uint32(round_ + 1)
    return x, y


def fft(x: mx.array, axes: Any, inverse: bool, real: bool, *rest: Any) -> mx.array:
    sizes = {"s": [rest[-1].shape[a] for a in axes]} if inverse and real else {}
    names = {(False, False): "fftn", (True, False): "ifftn", (False, True): "rfftn"}
    return getattr(mx.fft, names.get((inverse, real), "irfftn"))(x, axes=axes, **sizes)


def dequantize(w: mx.array, scales: mx.array, *rest: Any) -> mx.array:
    *biases, group_size, width, mode = rest
    bias = biases[0] if biases else None
    return mx.dequantize(w, scales, bias, group_size=group_size, bits=width, mode=mode)


def quantized_matmul(x: mx.array, w: mx.array, *rest: Any) -> mx.array:
    *parts, group_size, width, mode, transpose = rest
    weight = dequantize(w, *parts, group_size, width, mode)
    return x @ (weight.swapaxes(-1, -2) if transpose else weight)


def quantize(x: mx.array, *rest: Any) -> Any:
    *parts, group_size, width, mode, back = rest
    if back:
        return dequantize(x, *parts, group_size, width, mode)
    return mx.quantize(x, group_size=group_size, bits=width, mode=mode)


def eigh(x: mx.array, uplo: str, vectors: bool) -> Any:
    return mx.linalg.eigh(x, uplo) if vectors else mx.linalg.eigvalsh(x, uplo)


def eig(x: mx.array, vectors: bool) -> Any:
    return mx.linalg.eig(x) if vectors else mx.linalg.eigvals(x)


def view(x: mx.array, dtype: Any) -> mx.array:
    return x.view(dtype)


def equal(x: mx.array, y: mx.array, with_nan: bool = False) -> mx.array:
    both = mx.equal(x, y)
    return mx.logical_or(both, mx.isnan(x) & mx.isnan(y)) if with_nan else both


BITWISE: dict[str, Fn] = {
    "and": mx.bitwise_and, "or": mx.bitwise_or, "xor": mx.bitwise_xor,
    "left_shift": mx.left_shift, "right_shift": mx.right_shift,
}  # fmt: skip
