"""What other people's vision modules are made of: one small module a kind."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import numpy as np
import pytest

from converters import export_module, load_package

from ...support.lowered import as_module

mx.random.seed(3)
IMAGE = mx.random.normal((1, 8, 8, 6))
TOKENS = mx.random.normal((1, 16, 32))


class SwinMask(nn.Module):
    """An attention mask written window by window, of constants."""

    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(32, 96)

    def mask(self):
        image = mx.zeros((1, 4, 4, 1))
        count = 0
        for rows in (slice(0, -2), slice(-2, -1), slice(-1, None)):
            for columns in (slice(0, -2), slice(-2, None)):
                image[:, rows, columns, :] = count
                count += 1
        flat = image.reshape(1, 16)
        apart = flat[:, None] - flat[:, :, None]
        return mx.where(apart != 0, -100.0, 0.0)

    def __call__(self, x):
        q, k, v = mx.split(self.qkv(x), 3, axis=-1)
        return mx.softmax(q @ k.swapaxes(1, 2) * 0.2 + self.mask(), axis=-1) @ v


class QueryDecoder(nn.Module):
    """A detector's head: reference points, the best tokens, a dict of boxes and scores."""

    def __init__(self):
        super().__init__()
        self.scores, self.boxes, self.refine = (
            nn.Linear(32, 5),
            nn.Linear(32, 4),
            nn.Linear(4, 32),
        )

    def __call__(self, x):
        scores = self.scores(x)
        best = mx.argsort(-scores.max(axis=-1), axis=1)[:, :6]
        x = mx.take_along_axis(x, best[..., None], axis=1)
        points = mx.sigmoid(self.boxes(x))
        logit = mx.log(mx.clip(points, 1e-5, 1) / mx.clip(1 - points, 1e-5, 1))
        x = x + self.refine(logit)
        return {
            "boxes": mx.sigmoid(self.boxes(x)),
            "scores": self.scores(x),
            "aux": [points, None],
        }


class PolarRope(nn.Module):
    def __init__(self):
        super().__init__()
        self._turn = mx.exp(1j * mx.arange(16.0)[:, None] * 0.7 ** mx.arange(16.0))

    def __call__(self, x):
        pairs = mx.view(x.reshape(1, 16, 16, 2), mx.complex64)[..., 0]
        return mx.view((pairs * self._turn)[..., None], mx.float32).reshape(1, 16, 32)


class LazyCache(nn.Module):
    """A table that is made at the first call, of a parameter's value."""

    def __init__(self):
        super().__init__()
        self.stride, self._table, self.last = mx.array([2.0]), None, None

    def __call__(self, x):
        if self._table is None:
            self._table = mx.arange(16.0)[:, None] / float(self.stride[0])
        self.last = x + self._table
        return self.last


class FilledBuffer(nn.Module):
    """Patches that are written into a larger, padded array, and a mask that says which."""

    def __call__(self, x):
        out = mx.zeros((1, 20, 32))
        out[:, 2:18] = x
        seen = mx.zeros((1, 20), mx.bool_)
        seen[:, 2:18] = True
        return out * 2, mx.where(seen[..., None], out, -1.0), seen.sum()


COMPILED = partial(mx.compile, shapeless=True)(lambda x: x * mx.sigmoid(1.702 * x))


class Compiled(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.kernel = nn.Conv2d(6, 6, 3), mx.arange(9.0).reshape(1, 3, 3, 1)

    def __call__(self, x):
        kernel = nn.gelu(self.kernel) / 40
        y = mx.conv2d(mx.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], mode="edge"),
                      mx.broadcast_to(kernel, (6, 3, 3, 1)), groups=6)  # fmt: skip
        return COMPILED(self.conv(y))


class Halves(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(32, 32)
        self.layer.set_dtype(mx.bfloat16)

    def __call__(self, x):
        y = self.layer(x.astype(mx.bfloat16)).astype(mx.float32)
        return mx.where(y > 0.1, y, mx.expm1(y)), nn.ELU()(x), nn.Softshrink()(y)


class Quantized(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.layer = nn.Embedding(20, 64), nn.Linear(64, 64)
        nn.quantize(self, group_size=32, bits=4)

    def __call__(self, ids):
        return self.layer(self.embed(ids)), self.embed.as_linear(self.layer(self.embed(ids)))


class Pooled(nn.Module):
    """The token that is last, of how many a mask counts, as text encoders take it."""

    def __call__(self, x, mask):
        at = mx.maximum(mask.astype(mx.int32).sum(axis=1) - 1, 0)
        return x[mx.arange(x.shape[0]), at], mx.all(mask > 0), mx.cumsum(mask, axis=1)


class Empties(nn.Module):
    def __call__(self, x):
        x = mx.pad(x, [(0, 0), (0, 0), (0, 0)])
        return mx.concatenate([x[:, :0], x, mx.zeros((1, 0, 32))], axis=1) @ mx.ones((32, 2))


class Scored(nn.Module):
    def __call__(self, x, t):
        pooled = x.mean(axis=1)[0]
        return {"best": mx.argmax(pooled), "dot": pooled @ pooled, "one": x[0, 3, 4] * t}


KINDS = {
    "a mask written by windows": (SwinMask, [TOKENS]),
    "a detector's decoder": (QueryDecoder, [TOKENS]),
    "rotary positions of complex numbers": (PolarRope, [TOKENS]),
    "a lazy cache": (LazyCache, [TOKENS]),
    "a filled buffer": (FilledBuffer, [TOKENS]),
    "compiled functions and an edge pad": (Compiled, [IMAGE]),
    "half precision inside": (Halves, [TOKENS]),
    "quantized layers": (Quantized, [mx.array([[3, 1, 4, 1, 5]])]),
    "pooling by a mask": (Pooled, [TOKENS, mx.array([[1] * 9 + [0] * 7])]),
    "empty arrays": (Empties, [TOKENS]),
    "scalars": (Scored, [TOKENS, mx.array([0.5])]),
}  # fmt: skip


def arrays(result):
    values = result.values() if isinstance(result, Mapping) else result
    if isinstance(result, mx.array):
        return [result]
    return [array for value in values if value is not None for array in arrays(value)]


def psnr(found, wanted):
    wanted = np.atleast_1d(np.array(wanted, np.float64))
    assert found.shape == wanted.shape
    error = np.abs(found - wanted).max()
    return np.inf if error == 0 else 20 * np.log10(np.abs(wanted).max() / error)


@pytest.mark.parametrize(("precision", "least"), [("float32", 100), ("float16", 50)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_module_of_this_kind_becomes_a_package(kind, precision, least, tmp_path):
    build, inputs = KINDS[kind]
    mx.random.seed(0)  # scores that lie close together would be ranked anew in half precision
    net = as_module(build())
    path = export_module(net, inputs, tmp_path / "x.mlpackage", precision=precision)
    package = load_package(path)
    given = zip(package.inputs, inputs, strict=True)
    found = package.predict({name: np.array(x) for name, x in given})
    wanted = arrays(net(*inputs))  # the same object still runs
    if kind == "half precision inside":  # which the package does in float32 where MLX does not
        least = 38
    assert len(found) == len(wanted)
    for name, y in zip(found, wanted, strict=True):
        assert psnr(found[name], y) > least, name
