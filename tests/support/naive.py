"""What operations without a value inference in coremltools must give: slow, plain loops."""

from __future__ import annotations

from itertools import product
from math import ceil
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


def pads(
    pad_type: str, pad: Any, size: Any, kernel: Any, strides: Any
) -> list[tuple[int, int]]:
    if pad_type == "custom":
        return [(pad[2 * i], pad[2 * i + 1]) for i in range(len(size))]
    if pad_type == "valid":
        return [(0, 0)] * len(size)
    result = []
    for n, k, s in zip(size, kernel, strides, strict=True):
        total = max((ceil(n / s) - 1) * s + k - n, 0)
        small, large = total // 2, total - total // 2
        result.append((small, large) if pad_type == "same" else (large, small))
    return result


def padded(x: Array, room: list[tuple[int, int]], value: float) -> Array:
    return np.pad(x, [(0, 0), (0, 0), *room], constant_values=value)


def conv(
    x, weight, bias=None, strides=None, pad_type="valid", pad=None, dilations=None, groups=1
):
    rank = x.ndim - 2
    strides, dilations = strides or [1] * rank, dilations or [1] * rank
    reach = [(k - 1) * d + 1 for k, d in zip(weight.shape[2:], dilations, strict=True)]
    x = padded(x, pads(pad_type, pad, x.shape[2:], reach, strides), 0)
    out = [(n - r) // s + 1 for n, r, s in zip(x.shape[2:], reach, strides, strict=True)]
    O, I = weight.shape[:2]  # noqa: E741
    y = np.zeros((x.shape[0], O, *out), np.float32)
    for b, o, at in product(range(x.shape[0]), range(O), np.ndindex(*out)):
        first = o // (O // groups) * I
        window = tuple(
            slice(p * s, p * s + r, d)
            for p, s, r, d in zip(at, strides, reach, dilations, strict=True)
        )
        patch = x[(b, slice(first, first + I), *window)]
        y[(b, o, *at)] = (patch * weight[o]).sum() + (0 if bias is None else bias[o])
    return y


def conv_transpose(
    x,
    weight,
    bias=None,
    pad=None,
    pad_type="valid",
    strides=(1, 1),
    dilations=(1, 1),
    groups=1,
    output_shape=None,
):
    B, C, H, W = x.shape
    O, (kh, kw) = weight.shape[1], weight.shape[2:]  # noqa: E741
    along = zip((H, W), strides, (kh, kw), dilations, strict=True)
    full = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in along]
    y = np.zeros((B, O * groups, *(n + 9 for n in full)), np.float32)
    for b, c, o, h, w, i, j in product(*map(range, (B, C, O, H, W, kh, kw))):
        place = h * strides[0] + i * dilations[0], w * strides[1] + j * dilations[1]
        y[(b, c // (C // groups) * O + o, *place)] += x[b, c, h, w] * weight[c, o, i, j]
    top, left, size = 0, 0, full
    if pad_type == "custom":
        top, left = pad[0], pad[2]
        size = [full[0] - pad[0] - pad[1], full[1] - pad[2] - pad[3]]
    if output_shape is not None:
        size = output_shape[2:]
    y = y[:, :, top : top + size[0], left : left + size[1]]
    return y if bias is None else y + bias[:, None, None]


def pool(x, reduce, kernel_sizes, strides, pad_type="valid", pad=None, ceil_mode=False):
    """``reduce(values, places in real padding)`` over each window's part of the padded map."""
    room = pads(pad_type, pad, x.shape[2:], kernel_sizes, strides)
    inside = padded(np.ones_like(x), room, 0)
    wide = padded(x, room, 0)
    out = []
    for n, real, k, s, (before, _) in zip(
        wide.shape[2:], x.shape[2:], kernel_sizes, strides, room, strict=True
    ):
        count = (ceil if ceil_mode else int)((n - k) / s) + 1
        out.append(count - (ceil_mode and before > 0 and (count - 1) * s >= real + before))
    y = np.zeros((*x.shape[:2], *out), np.float32)
    for b, c, at in product(range(x.shape[0]), range(x.shape[1]), np.ndindex(*out)):
        window = tuple(
            slice(p * s, p * s + k) for p, s, k in zip(at, strides, kernel_sizes, strict=True)
        )
        y[(b, c, *at)] = reduce(wide[(b, c, *window)], inside[(b, c, *window)] == 1)
    return y


def max_pool(x, **options):
    return pool(x, lambda values, real: values[real].max(), **options)


def l2_pool(x, **options):
    return pool(x, lambda values, real: np.sqrt(np.square(values).sum()), **options)


def avg_pool(x, exclude_padding_from_average=False, **options):
    def mean(values, real):
        return values.sum() / (real.sum() if exclude_padding_from_average else values.size)

    return pool(x, mean, **options)


def batch_norm(x, mean, variance, gamma=None, beta=None, epsilon=1e-5):
    y = np.empty_like(x)
    for c in range(x.shape[1]):
        y[:, c] = (x[:, c] - mean[c]) / np.sqrt(variance[c] + epsilon)
        y[:, c] = y[:, c] * (1 if gamma is None else gamma[c]) + (
            0 if beta is None else beta[c]
        )
    return y


def instance_norm(x, gamma=None, beta=None, epsilon=1e-5):
    y = np.empty_like(x)
    for b, c in np.ndindex(*x.shape[:2]):
        y[b, c] = (x[b, c] - x[b, c].mean()) / np.sqrt(x[b, c].var() + epsilon)
        y[b, c] = y[b, c] * (1 if gamma is None else gamma[c]) + (
            0 if beta is None else beta[c]
        )
    return y


def local_response_norm(x, size, alpha=1e-4, beta=0.75, k=1.0):
    y = np.empty_like(x)
    for c in range(x.shape[1]):
        first = c - (size - 1) // 2
        near = x[:, max(first, 0) : first + size]
        y[:, c] = x[:, c] / (k + alpha / size * np.square(near).sum(1)) ** beta
    return y


def resample(
    x, coordinates, sampling_mode, padding_mode, padding_value, coordinates_mode, align_corners
):
    """Each point by itself: what is in the four pixels around it, by how near they are."""
    B, C, H, W = x.shape
    y = np.zeros((B, C, *coordinates.shape[1:3]))
    for b, i, j in np.ndindex(*coordinates.shape[:3]):
        at = []
        for n, t in zip((W, H), coordinates[b, i, j].astype(float), strict=True):
            t = {"unnormalized": None, "normalized_zero_to_one": t}.get(
                coordinates_mode, (t + 1) / 2
            )
            t = (
                float(coordinates[b, i, j][len(at)])
                if t is None
                else (t * (n - 1) if align_corners else t * n - 0.5)
            )
            at.append(min(max(t, 0), n - 1) if padding_mode == "border" else t)
        for h in (int(np.floor(at[1])), int(np.floor(at[1])) + 1):
            for w in (int(np.floor(at[0])), int(np.floor(at[0])) + 1):
                near = (1 - abs(at[0] - w)) * (1 - abs(at[1] - h))
                inside = 0 <= h < H and 0 <= w < W
                y[b, :, i, j] += near * (x[b, :, h, w] if inside else padding_value)
    return y.astype(np.float32)


def pixel_shuffle(x, upscale_factor):
    r = upscale_factor
    B, C, H, W = x.shape
    y = np.empty((B, C // r**2, H * r, W * r), x.dtype)
    for b, c, h, w in np.ndindex(*y.shape):
        y[b, c, h, w] = x[b, c * r**2 + h % r * r + w % r, h // r, w // r]
    return y


def pixel_unshuffle(x, downscale_factor):
    r = downscale_factor
    B, C, H, W = x.shape
    y = np.empty((B, C * r**2, H // r, W // r), x.dtype)
    for b, c, h, w in np.ndindex(*x.shape):
        y[b, c * r**2 + h % r * r + w % r, h // r, w // r] = x[b, c, h, w]
    return y


def depth_to_space(x, block_size):
    r = block_size
    B, C, H, W = x.shape
    y = np.empty((B, C // r**2, H * r, W * r), x.dtype)
    for b, c, h, w in np.ndindex(*y.shape):
        y[b, c, h, w] = x[b, (h % r * r + w % r) * (C // r**2) + c, h // r, w // r]
    return y


def space_to_depth(x, block_size):
    r = block_size
    B, C, H, W = x.shape
    y = np.empty((B, C * r**2, H // r, W // r), x.dtype)
    for b, c, h, w in np.ndindex(*x.shape):
        y[b, (h % r * r + w % r) * C + c, h // r, w // r] = x[b, c, h, w]
    return y


def gather_nd(x, indices, batch_dims=0):
    rows = [x[(*at[:batch_dims], *indices[at])] for at in np.ndindex(*indices.shape[:-1])]
    return np.stack(rows).reshape(*indices.shape[:-1], *rows[0].shape)


def _write(old, new, mode):
    return {
        "update": new, "add": old + new, "mul": old * new,
        "max": max(old, new), "min": min(old, new),
    }[mode]  # fmt: skip


def scatter_nd(data, indices, updates, mode="add"):
    y = data.copy()
    for at in np.ndindex(*indices.shape[:-1]):
        for inner in np.ndindex(*data.shape[indices.shape[-1] :]):
            place = (*indices[at], *inner)
            y[place] = _write(y[place], updates[(*at, *inner)], mode)
    return y


def scatter_along_axis(data, indices, updates, axis=0, mode="add"):
    y = data.copy()
    for at in np.ndindex(*indices.shape):
        place = (*at[:axis], indices[at], *at[axis + 1 :])
        y[place] = _write(y[place], updates[at], mode)
    return y


def one_hot(indices, one_hot_vector_size, axis=-1, on_value=1, off_value=0):
    y = np.full((*indices.shape, one_hot_vector_size), off_value)
    for at in np.ndindex(*indices.shape):
        y[(*at, indices[at])] = on_value
    return np.moveaxis(y, -1, axis)
