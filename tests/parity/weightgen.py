"""Weights and pictures that anybody can rebuild bit for bit: functions of (seed, key, shape).

Each tensor has its own PCG64 stream, seeded with (seed, crc32(key)); only uniform doubles
and + - * are used, so the result is the same on every platform. Batch-norm statistics, biases,
layer scales and attention biases are all non-trivial: folding them wrongly shows.

``gains`` hold what arrives at each batch norm, as [standard deviation, mean of each channel
in sixteenths of it (int8, base64)], so that its statistics fit and the image, not a constant,
decides the outcome.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_LAYER_SCALE = re.compile(
    r"(^|\.)(layer_scale\w*(\.gamma)?|layer_scale\.scale|ls\d?\.\w*gamma|gamma\w*|alpha|scale_\d?)$"
)
_IDENTITY = re.compile(r"(token_mixer|pos_emb|network\.\d+)\.reparam_conv\.weight$")


def state_dict(
    seed: int, shapes: Mapping[str, Sequence[int]], gains: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Weights of a checkpoint, by key, in torch's layouts."""
    norms = {k.removesuffix(".running_var") for k in shapes if k.endswith(".running_var")}
    return {
        key: _tensor(seed, key, tuple(shape), norms, gains.get(key.rpartition(".")[0]))
        for key, shape in shapes.items()
    }


def image_batch(seed: int, n: int, size: int) -> np.ndarray:
    """(n, 3, size, size) float32 in [-2, 2]: plane waves at several scales plus white noise."""
    yy, xx = np.meshgrid(np.arange(size) / size, np.arange(size) / size, indexing="ij")
    out = np.zeros((n, 3, size, size))
    for i, j in np.ndindex(n, 3):
        for fx, fy, phase, amplitude in _uniform(seed, f"image.{i}.{j}", (6, 4)):
            wave = np.abs(((fx * 12 * xx + fy * 12 * yy + phase) % 1.0) - 0.5) * 4 - 1
            out[i, j] += amplitude * wave
        out[i, j] += 0.4 * _uniform(seed, f"noise.{i}.{j}", (size, size))
    return np.clip(out, -2.0, 2.0).astype(np.float32)


def _uniform(seed: int, key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Uniform in [-1, 1)."""
    sequence = np.random.SeedSequence([seed, zlib.crc32(key.encode())])
    return np.random.Generator(np.random.PCG64(sequence)).random(shape) * 2.0 - 1.0


def _tensor(
    seed: int, key: str, shape: tuple[int, ...], norms: set[str], gain: Any
) -> np.ndarray:
    prefix, _, leaf = key.rpartition(".")
    if leaf == "num_batches_tracked":
        return np.zeros(shape, np.int64)
    u = _uniform(seed, key, shape)
    std, centre = _gain(gain)
    if leaf == "running_mean":
        u = centre + 0.5 * std * u
    elif leaf == "running_var":
        u = std * std * (1.25 + 0.75 * u)
    elif "temperature" in leaf or "logit_scale" in leaf or u.size == 1:
        u = 1.0 + 0.3 * u
    elif _LAYER_SCALE.search(key) and u.size == max(shape):
        u = 0.6 + 0.3 * u
    elif leaf == "bias" and len(shape) == 1:
        u = 0.2 * u
    elif leaf == "weight" and (len(shape) == 1 or prefix in norms):
        u = 1.0 + 0.4 * u
    elif leaf == "proj" and len(shape) == 2:
        u = u * (3.0 / shape[0]) ** 0.5
    elif leaf == "weight" and len(shape) >= 2:
        u = _kernel(key, u)
    else:  # attention biases
        u = 0.8 * u
    return u.astype(np.float32)


def _kernel(key: str, u: np.ndarray) -> np.ndarray:
    """Unit gain, scaled by the fan-in; rows of dense ones sum to nearly nothing."""
    shape, fan_in = u.shape, int(np.prod(u.shape[1:]))
    u = u * (3.0 / fan_in) ** 0.5
    depthwise = len(shape) == 4 and shape[1] == 1
    if depthwise and _IDENTITY.search(key):
        u = 0.25 * u
        u[:, :, shape[2] // 2, shape[3] // 2] += 1.0
    elif not (depthwise and max(shape[2:]) > 1) and fan_in > 8:
        rows = u.reshape(shape[0], -1)
        u = (rows - 0.9 * rows.mean(1, keepdims=True)).reshape(shape)
    return u


def _gain(gain: Any) -> tuple[float, Any]:
    std, packed = gain or (1.0, "")
    centre = np.frombuffer(base64.b64decode(packed), np.int8).astype(np.float64)
    return std, centre * (std / 16) if centre.size else 0.0
