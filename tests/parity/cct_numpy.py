"""CCT in NumPy and double precision, by the authors' names of its arrays.

Written from SHI-Labs' Compact-Transformers, which are not in timm and cannot run here.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray
Arrays = dict[str, Array]


def weights(config: Any, seed: int = 0) -> Arrays:
    """Random ones for a ``CCTConfig``, in torch's layouts; none is the neutral one."""
    rng = np.random.default_rng(seed)
    made = {}
    for name, shape in _shapes(config).items():
        spread = 0.3 if len(shape) == 1 else math.prod(shape[1:]) ** -0.5
        array = rng.standard_normal(shape) * (0.3 if "positional" in name else spread)
        is_norm = len(shape) == 1 and name.endswith("weight")
        made[name] = (array + is_norm).astype(np.float32)
    return made


def _shapes(c: Any) -> dict[str, tuple[int, ...]]:
    dim, hidden = c.embed_dim, c.mlp_ratio * c.embed_dim
    widths = [3, *[64] * (c.convs - 1), dim]
    linear = {"attention_pool": (1, dim), "fc": (c.num_classes, dim)}
    norms = ["norm"]
    found: dict[str, tuple[int, ...]] = {}
    for i in range(c.convs):
        kernel = (widths[i + 1], widths[i], c.kernel, c.kernel)
        found[f"tokenizer.conv_layers.{i}.0.weight"] = kernel
    found["classifier.positional_emb"] = (1, c.tokens, dim)
    for i in range(c.depth):
        at = f"blocks.{i}"
        norms += [f"{at}.pre_norm", f"{at}.norm1"]
        found[f"classifier.{at}.self_attn.qkv.weight"] = (3 * dim, dim)
        linear |= {f"{at}.self_attn.proj": (dim, dim), f"{at}.linear1": (hidden, dim)}
        linear |= {f"{at}.linear2": (dim, hidden)}
    for name, shape in linear.items():
        found |= {f"classifier.{name}.weight": shape, f"classifier.{name}.bias": shape[:1]}
    for name in norms:
        found |= {f"classifier.{name}.weight": (dim,), f"classifier.{name}.bias": (dim,)}
    return found


def logits(w: Arrays, pixels: Array, c: Any) -> Array:
    """(B, 3, H, W) normalized images to (B, classes)."""
    x = pixels.astype(float)
    for i in range(c.convs):
        x = _conv(x, w[f"tokenizer.conv_layers.{i}.0.weight"], max(1, c.kernel // 2 - 1))
        x = _windows(np.maximum(x, 0), 3, 2, -np.inf).max((-2, -1))
    w = {k.removeprefix("classifier."): v for k, v in w.items()}
    x = x.reshape(*x.shape[:2], -1).swapaxes(1, 2) + w["positional_emb"]
    for i in range(c.depth):
        at = f"blocks.{i}"
        y = _norm(w, f"{at}.pre_norm", x) @ w[f"{at}.self_attn.qkv.weight"].T.astype(float)
        y = _attention(*np.split(y, 3, axis=-1), c.heads)
        x = _norm(w, f"{at}.norm1", x + _linear(w, f"{at}.self_attn.proj", y))
        y = _linear(w, f"{at}.linear1", x)
        y = 0.5 * y * (1 + np.vectorize(math.erf)(y / math.sqrt(2)))
        x = x + _linear(w, f"{at}.linear2", y)
    x = _norm(w, "norm", x)
    shares = _softmax(_linear(w, "attention_pool", x), axis=1)
    return _linear(w, "fc", (shares * x).sum(1))


def sines(length: int, dim: int) -> Array:
    """(1, length, dim) positions that are not learned."""
    rows = [[p / 10000 ** (2 * (i // 2) / dim) for i in range(dim)] for p in range(length)]
    return np.where(np.arange(dim) % 2 == 0, np.sin(rows), np.cos(rows))[None]


def _windows(x: Array, kernel: int, stride: int, fill: float) -> Array:
    """(B, C, H', W', kernel, kernel) of (B, C, H, W), padded by half a kernel."""
    n = kernel // 2
    x = np.pad(x, ((0, 0), (0, 0), (n, n), (n, n)), constant_values=fill)
    found = np.lib.stride_tricks.sliding_window_view(x, (kernel, kernel), (2, 3))
    return found[:, :, ::stride, ::stride]


def _conv(x: Array, kernel: Array, stride: int) -> Array:
    windows = _windows(x, kernel.shape[-1], stride, 0)
    return np.einsum("bchwij,ocij->bohw", windows, kernel.astype(float), optimize=True)


def _linear(w: Arrays, at: str, x: Array) -> Array:
    return x @ w[f"{at}.weight"].T.astype(float) + w[f"{at}.bias"]


def _norm(w: Arrays, at: str, x: Array) -> Array:
    y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    return y * w[f"{at}.weight"] + w[f"{at}.bias"]


def _softmax(x: Array, axis: int) -> Array:
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def _attention(q: Array, k: Array, v: Array, heads: int) -> Array:
    B, N, C = q.shape
    q, k, v = (y.reshape(B, N, heads, -1).swapaxes(1, 2) for y in (q, k, v))
    scores = _softmax(q @ k.swapaxes(2, 3) / math.sqrt(C // heads), axis=-1)
    return (scores @ v).swapaxes(1, 2).reshape(B, N, C)
