"""Checkpoints of FastViT as timm's ``reparameterize_model`` leaves them, by numpy alone.

A block with parallel branches has one convolution instead, ``reparam_conv``: the sum of its
branches, each with its batch norm folded in. Written after timm 1.0.31's fastvit.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import numpy as np

Arrays = dict[str, np.ndarray]
Conv = tuple[np.ndarray, np.ndarray]  # (out, in/groups, k, k), (out,)
_BRANCHES = ("conv_kxk.0", "conv_scale", "large_conv", "small_conv", "identity")
_EPS = 1e-5


def merged(weights: Mapping[str, np.ndarray]) -> Arrays:
    """All that is in no branch, and a ``reparam_conv`` for each block that had branches."""
    left = {k: np.asarray(v, np.float64) for k, v in weights.items()}
    mixers = _owners(left, r"(.*token_mixer)\.mixer\..*")
    for mixer in mixers:
        _put(left, mixer, _mixer(left, mixer))
    for block in _owners(left, r"(.*)\.(?:conv_kxk\.0|large_conv)\.conv\.weight"):
        _put(left, block, _block(left, block))
    for place in _owners(left, r"(.*pos_emb)\.pos_enc\.weight"):
        w, b = left.pop(f"{place}.pos_enc.weight"), left.pop(f"{place}.pos_enc.bias")
        _put(left, place, (w + _identity(w.shape), b))
    return {k: v.astype(np.float32) for k, v in left.items() if "num_batches" not in k}


def _owners(arrays: Arrays, pattern: str) -> list[str]:
    found = (re.fullmatch(pattern, key) for key in arrays)
    return list(dict.fromkeys(m[1] for m in found if m))


def _put(arrays: Arrays, block: str, conv: Conv) -> None:
    arrays[f"{block}.reparam_conv.weight"], arrays[f"{block}.reparam_conv.bias"] = conv


def _mixer(arrays: Arrays, mixer: str) -> Conv:
    w, b = _block(arrays, f"{mixer}.mixer")
    minus_w, minus_b = _norm(arrays, f"{mixer}.norm.identity", _identity(w.shape))
    scale = arrays.pop(f"{mixer}.layer_scale.gamma").reshape(-1)
    scaled = scale[:, None, None, None] * (w - minus_w)
    return _identity(w.shape) + scaled, scale * (b - minus_b)


def _block(arrays: Arrays, block: str) -> Conv:
    """The sum of a block's branches; the first has the largest kernel."""
    total: list[np.ndarray] = []
    for branch in (f"{block}.{name}" for name in _BRANCHES):
        if f"{branch}.conv.weight" in arrays:
            w, b = _norm(arrays, f"{branch}.bn", arrays.pop(f"{branch}.conv.weight"))
        elif f"{branch}.weight" in arrays:
            w, b = _norm(arrays, branch, _identity(total[0].shape))
        else:
            continue
        total = [total[0] + _padded(w, total[0]), total[1] + b] if total else [w, b]
    return total[0], total[1]


def _norm(arrays: Arrays, norm: str, w: np.ndarray) -> Conv:
    """A convolution without a bias and the batch norm after it."""
    names = ("weight", "bias", "running_mean", "running_var")
    gamma, beta, mean, var = (arrays.pop(f"{norm}.{name}") for name in names)
    scale = gamma / np.sqrt(var + _EPS)
    return w * scale[:, None, None, None], beta - mean * scale


def _identity(shape: tuple[int, ...]) -> np.ndarray:
    out, per_group, k, _ = shape
    w = np.zeros(shape)
    w[np.arange(out), np.arange(out) % per_group, k // 2, k // 2] = 1
    return w


def _padded(w: np.ndarray, like: np.ndarray) -> np.ndarray:
    edge = (like.shape[2] - w.shape[2]) // 2
    return np.pad(w, [(0, 0), (0, 0), (edge, edge), (edge, edge)])
