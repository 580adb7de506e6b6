"""Operations that only move values, and those that make index tensors."""

from __future__ import annotations

from typing import Any

import numpy as np

from .registry import Array, evaluates, ints, positive


@evaluates("reshape", exact=True)
def reshape(x: Array, shape: Any) -> Array:
    """0 keeps the axis at that position, -1 is what remains."""
    return x.reshape([x.shape[i] if n == 0 else n for i, n in enumerate(ints(shape))])


@evaluates("transpose", exact=True)
def transpose(x: Array, perm: Any) -> Array:
    return x.transpose(ints(perm))


@evaluates("expand_dims", exact=True)
def expand_dims(x: Array, axes: Any) -> Array:
    return np.expand_dims(x, ints(axes))


@evaluates("squeeze", exact=True)
def squeeze(x: Array, axes: Any = None) -> Array:
    return np.squeeze(x, None if axes is None else ints(axes))


@evaluates("concat", exact=True)
def concat(values: tuple[Array, ...], axis: int, interleave: bool = False) -> Array:
    axis = int(axis)
    if not interleave:
        return np.concatenate(values, axis)
    axis %= values[0].ndim
    shape = list(values[0].shape)
    shape[axis] *= len(values)
    return np.stack(values, axis + 1).reshape(shape)


@evaluates("stack", exact=True)
def stack(values: tuple[Array, ...], axis: int) -> Array:
    return np.stack(values, int(axis))


@evaluates("split", exact=True)
def split(
    x: Array, axis: int, num_splits: int | None = None, split_sizes: Any = None
) -> tuple[Array, ...]:
    if split_sizes is not None:
        return tuple(np.split(x, np.cumsum(ints(split_sizes))[:-1], int(axis)))
    assert num_splits is not None
    return tuple(np.split(x, int(num_splits), int(axis)))


@evaluates("slice_by_index", exact=True)
def slice_by_index(
    x: Array,
    begin: Any,
    end: Any,
    stride: Any = None,
    begin_mask: Any = None,
    end_mask: Any = None,
    squeeze_mask: Any = None,
) -> Array:
    def flags(mask: Any) -> list[bool]:
        return [False] * x.ndim if mask is None else [bool(m) for m in mask]

    steps = (1,) * x.ndim if stride is None else ints(stride)
    index = tuple(
        b if squeezed else slice(None if open_b else b, None if open_e else e, s)
        for b, e, s, open_b, open_e, squeezed in zip(
            ints(begin),
            ints(end),
            steps,
            flags(begin_mask),
            flags(end_mask),
            flags(squeeze_mask),
            strict=True,
        )
    )
    return np.asarray(x[index])


@evaluates("slice_by_size", exact=True)
def slice_by_size(x: Array, begin: Any, size: Any) -> Array:
    starts = zip(ints(begin), ints(size), strict=True)
    return x[tuple(slice(b, None if n == -1 else b + n) for b, n in starts)]


@evaluates("slice_update", exact=True)
def slice_update(
    x: Array,
    update: Array,
    begin: Any,
    end: Any,
    stride: Any = None,
    begin_mask: Any = None,
    end_mask: Any = None,
    squeeze_mask: Any = None,
) -> Array:
    result = x.copy()
    target = slice_by_index(result, begin, end, stride, begin_mask, end_mask, squeeze_mask)
    target[...] = update
    return result


_PAD_MODES = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}


@evaluates("pad", exact=True)
def pad(x: Array, pad: Any, mode: str = "constant", constant_val: Any = 0) -> Array:
    """``pad`` is for the last axes: before and after each."""
    flat = ints(pad)
    edges = [(0, 0)] * (x.ndim - len(flat) // 2) + list(zip(flat[::2], flat[1::2], strict=True))
    fill = {"constant_values": constant_val} if mode == "constant" else {}
    padded: Array = np.pad(x, edges, _PAD_MODES[mode], **fill)  # type: ignore[call-overload]
    return padded


@evaluates("tile", exact=True)
def tile(x: Array, reps: Any) -> Array:
    return np.tile(x, ints(reps))


@evaluates("reverse", exact=True)
def reverse(x: Array, axes: Any = None) -> Array:
    return np.flip(x, None if axes is None else ints(axes))


@evaluates("crop", exact=True)
def crop(x: Array, crop_height: Any, crop_width: Any) -> Array:
    (top, bottom), (left, right) = ints(crop_height), ints(crop_width)
    H, W = x.shape[-2:]
    return x[..., top : H - bottom, left : W - right]


@evaluates("gather", exact=True)
def gather(
    x: Array, indices: Array, axis: int = 0, batch_dims: int = 0, validate_indices: bool = False
) -> Array:
    axis, batch = positive(axis, x.ndim)[0], int(batch_dims)
    indices = np.asarray(indices, np.int64)
    if not batch:
        return np.take(x, indices, axis)
    rows = [np.take(x[i], indices[i], axis - batch) for i in np.ndindex(*indices.shape[:batch])]
    return np.stack(rows).reshape(*x.shape[:batch], *rows[0].shape)


@evaluates("gather_along_axis", exact=True)
def gather_along_axis(
    x: Array, indices: Array, axis: int = 0, validate_indices: bool = False
) -> Array:
    return np.take_along_axis(x, np.asarray(indices, np.int64), int(axis))


@evaluates("gather_nd", exact=True)
def gather_nd(
    x: Array, indices: Array, batch_dims: int = 0, validate_indices: bool = False
) -> Array:
    batch = int(batch_dims)
    positions = tuple(np.moveaxis(np.asarray(indices, np.int64), -1, 0))
    grid = np.indices(indices.shape[:-1])[:batch]
    return np.asarray(x[(*grid, *positions)])


@evaluates("pixel_shuffle", exact=True)
def pixel_shuffle(x: Array, upscale_factor: int) -> Array:
    B, C, H, W = x.shape
    r = int(upscale_factor)
    x = x.reshape(B, C // r**2, r, r, H, W).transpose(0, 1, 4, 2, 5, 3)
    return x.reshape(B, C // r**2, H * r, W * r)


@evaluates("pixel_unshuffle", exact=True)
def pixel_unshuffle(x: Array, downscale_factor: int) -> Array:
    B, C, H, W = x.shape
    r = int(downscale_factor)
    x = x.reshape(B, C, H // r, r, W // r, r).transpose(0, 1, 3, 5, 2, 4)
    return x.reshape(B, C * r**2, H // r, W // r)


@evaluates("depth_to_space", exact=True)
def depth_to_space(x: Array, block_size: int) -> Array:
    B, C, H, W = x.shape
    r = int(block_size)
    x = x.reshape(B, r, r, C // r**2, H, W).transpose(0, 3, 4, 1, 5, 2)
    return x.reshape(B, C // r**2, H * r, W * r)


@evaluates("space_to_depth", exact=True)
def space_to_depth(x: Array, block_size: int) -> Array:
    B, C, H, W = x.shape
    r = int(block_size)
    x = x.reshape(B, C, H // r, r, W // r, r).transpose(0, 3, 5, 1, 2, 4)
    return x.reshape(B, C * r**2, H // r, W // r)


@evaluates("shape")
def shape(x: Array) -> Array:
    return np.array(x.shape, np.int32)


@evaluates("fill")
def fill(shape: Any, value: Any) -> Array:
    return np.full(ints(shape), value)


@evaluates("range_1d")
def range_1d(start: Any, end: Any, step: Any) -> Array:
    return np.arange(start, end, step)


@evaluates("one_hot")
def one_hot(
    indices: Array,
    one_hot_vector_size: int,
    axis: int = -1,
    on_value: Any = 1,
    off_value: Any = 0,
) -> Array:
    size = int(one_hot_vector_size)
    hot = np.asarray(indices)[..., None] == np.arange(size)
    return np.moveaxis(np.where(hot, on_value, off_value), -1, int(axis))


_WRITES: dict[str, Any] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
}


def _write(x: Array, where: Any, y: Array, mode: str) -> Array:
    result = x.copy()
    if mode == "update":
        result[where] = y
    else:
        _WRITES[mode].at(result, where, y)
    return result


@evaluates("scatter_nd")
def scatter_nd(
    data: Array,
    indices: Array,
    updates: Array,
    mode: str = "add",
    validate_indices: Any = False,
) -> Array:
    where = tuple(np.moveaxis(np.asarray(indices, np.int64), -1, 0))
    return _write(data, where, updates, str(mode))


@evaluates("scatter_along_axis")
def scatter_along_axis(
    data: Array,
    indices: Array,
    updates: Array,
    axis: int = 0,
    mode: str = "add",
    validate_indices: Any = False,
) -> Array:
    where: list[Array] = list(np.indices(indices.shape))
    where[int(axis)] = np.asarray(indices, np.int64)
    return _write(data, tuple(where), updates, str(mode))
