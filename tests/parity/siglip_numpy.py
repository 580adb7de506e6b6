"""SigLIP's two encoders in NumPy and double precision, by open_clip's names of their arrays.

Written from open_clip 3.3.0, timm 1.0.31 and transformers 5.23.0, none of which can run here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

Array = np.ndarray
Arrays = dict[str, Array]
EPS = 1e-6


@dataclass(frozen=True)
class Size:
    """Of both encoders; ``tanh`` are the encoders whose GELU is an approximation."""

    width: int = 48
    heads: int = 4
    depth: int = 3
    patch: int = 16
    pixels: int = 64
    vocab: int = 90
    context: int = 64
    tanh: tuple[str, ...] = ()


def shapes(size: Size) -> dict[str, tuple[int, ...]]:
    """Of a checkpoint's arrays."""
    dim, side = size.width, size.pixels // size.patch
    found: dict[str, tuple[int, ...]] = {
        "logit_scale": (),
        "logit_bias": (),
        "text.token_embedding.weight": (size.vocab, dim),
        "text.positional_embedding": (size.context, dim),
        "visual.trunk.pos_embed": (1, side**2, dim),
        "visual.trunk.patch_embed.proj.weight": (dim, 3, size.patch, size.patch),
        "visual.trunk.patch_embed.proj.bias": (dim,),
        "visual.trunk.attn_pool.latent": (1, 1, dim),
    }
    linear = {"text.text_projection": (dim, dim), "visual.trunk.attn_pool.q": (dim, dim)}
    linear |= {"visual.trunk.attn_pool.kv": (2 * dim, dim)}
    linear |= {"visual.trunk.attn_pool.proj": (dim, dim)}
    linear |= {"visual.trunk.attn_pool.mlp.fc1": (4 * dim, dim)}
    linear |= {"visual.trunk.attn_pool.mlp.fc2": (dim, 4 * dim)}
    norms = ["text.ln_final", "visual.trunk.norm", "visual.trunk.attn_pool.norm"]
    for i in range(size.depth):
        text, image = f"text.transformer.resblocks.{i}", f"visual.trunk.blocks.{i}"
        norms += [f"{text}.ln_1", f"{text}.ln_2", f"{image}.norm1", f"{image}.norm2"]
        found |= {f"{text}.attn.in_proj_weight": (3 * dim, dim)}
        found |= {f"{text}.attn.in_proj_bias": (3 * dim,)}
        linear |= {f"{text}.attn.out_proj": (dim, dim), f"{text}.mlp.c_fc": (4 * dim, dim)}
        linear |= {f"{text}.mlp.c_proj": (dim, 4 * dim), f"{image}.attn.qkv": (3 * dim, dim)}
        linear |= {f"{image}.attn.proj": (dim, dim), f"{image}.mlp.fc1": (4 * dim, dim)}
        linear |= {f"{image}.mlp.fc2": (dim, 4 * dim)}
    for name, shape in linear.items():
        found |= {f"{name}.weight": shape, f"{name}.bias": shape[:1]}
    for name in norms:
        found |= {f"{name}.weight": (dim,), f"{name}.bias": (dim,)}
    return found


def weights(size: Size, seed: int = 0) -> Arrays:
    """None of the numbers is the neutral one."""
    rng = np.random.default_rng(seed)
    made = {"logit_scale": np.float32(4.7), "logit_bias": np.float32(-12.5)}
    for name, shape in sorted(shapes(size).items()):
        if shape:
            spread = math.prod(shape[1:]) ** -0.5 if name.endswith("weight") else 0.3
            array = rng.standard_normal(shape) * (spread if len(shape) > 1 else 0.3)
            is_norm = len(shape) == 1 and name.endswith("weight")
            made[name] = (array + is_norm).astype(np.float32)
    return {name: np.asarray(made[name]) for name in shapes(size)}


def text(w: Arrays, ids: Array, size: Size) -> Array:
    """(B, context) token ids to (B, width) unit vectors."""
    x = w["text.token_embedding.weight"][ids].astype(float) + w["text.positional_embedding"]
    for i in range(size.depth):
        at = f"text.transformer.resblocks.{i}"
        qkv = w[f"{at}.attn.in_proj_weight"], w[f"{at}.attn.in_proj_bias"]
        y = _norm(w, f"{at}.ln_1", x)
        q, k, v = np.split(y @ qkv[0].T + qkv[1], 3, axis=-1)
        x = x + _linear(w, f"{at}.attn.out_proj", _attention(q, k, v, size.heads))
        y = _gelu(_linear(w, f"{at}.mlp.c_fc", _norm(w, f"{at}.ln_2", x)), "text" in size.tanh)
        x = x + _linear(w, f"{at}.mlp.c_proj", y)
    return _unit(_linear(w, "text.text_projection", _norm(w, "text.ln_final", x)[:, -1]))


def image(w: Arrays, pixels: Array, size: Size) -> Array:
    """(B, 3, H, W) normalized images to (B, width) unit vectors."""
    w = {k.removeprefix("visual.trunk."): v for k, v in w.items()}
    tanh, side = "image" in size.tanh, size.pixels // size.patch
    patches = pixels.astype(float).reshape(-1, 3, side, size.patch, side, size.patch)
    patches = patches.transpose(0, 2, 4, 1, 3, 5).reshape(len(pixels), side**2, -1)
    kernel = w["patch_embed.proj.weight"].reshape(size.width, -1)
    x = patches @ kernel.T + w["patch_embed.proj.bias"] + w["pos_embed"]
    for i in range(size.depth):
        at = f"blocks.{i}"
        qkv = _linear(w, f"{at}.attn.qkv", _norm(w, f"{at}.norm1", x))
        y = _attention(*np.split(qkv, 3, axis=-1), size.heads)
        x = x + _linear(w, f"{at}.attn.proj", y)
        y = _gelu(_linear(w, f"{at}.mlp.fc1", _norm(w, f"{at}.norm2", x)), tanh)
        x = x + _linear(w, f"{at}.mlp.fc2", y)
    x = _norm(w, "norm", x)
    q = np.broadcast_to(_linear(w, "attn_pool.q", w["attn_pool.latent"]), x[:, :1].shape)
    k, v = np.split(_linear(w, "attn_pool.kv", x), 2, axis=-1)
    x = _linear(w, "attn_pool.proj", _attention(q, k, v, size.heads))
    y = _gelu(_linear(w, "attn_pool.mlp.fc1", _norm(w, "attn_pool.norm", x)), tanh)
    return _unit((x + _linear(w, "attn_pool.mlp.fc2", y))[:, 0])


def probabilities(w: Arrays, images: Array, texts: Array) -> Array:
    """(images, texts): of each pair by itself."""
    logits = np.exp(float(w["logit_scale"])) * (images @ texts.T) + float(w["logit_bias"])
    return 1 / (1 + np.exp(-logits))


def _linear(w: Arrays, at: str, x: Array) -> Array:
    return x @ w[f"{at}.weight"].T.astype(float) + w[f"{at}.bias"]


def _norm(w: Arrays, at: str, x: Array) -> Array:
    y = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + EPS)
    return y * w[f"{at}.weight"] + w[f"{at}.bias"]


def _attention(q: Array, k: Array, v: Array, heads: int) -> Array:
    B, _, C = k.shape
    q, k, v = (y.reshape(B, -1, heads, C // heads).swapaxes(1, 2) for y in (q, k, v))
    scores = q @ k.swapaxes(2, 3) / math.sqrt(C // heads)
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return (e / e.sum(-1, keepdims=True) @ v).swapaxes(1, 2).reshape(B, -1, C)


def _gelu(x: Array, tanh: bool) -> Array:
    if tanh:
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def _unit(x: Array) -> Array:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)
