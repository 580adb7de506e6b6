"""RetinaNet's neck, head and choice of boxes in NumPy and double precision, channels first, and
the names of its arrays.

Written from mmdetection 2.25's FPN, RetinaHead, AnchorGenerator and DeltaXYWHBBoxCoder, and the
configurations, backbones and neck of SHViT's and EfficientViT's authors (``downstream/``), none
of which can run here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

Array = np.ndarray
Arrays = dict[str, Array]
Shape = tuple[int, ...]
STRIDES = (8, 16, 32, 64, 128)
NORMS = ("weight", "bias", "running_mean", "running_var")
BEFORE, IOU, KEPT, LEAST = 1000, 0.5, 100, 0.05  # test_cfg
# Of shvit_s4 and EfficientViT_M4.
DIMS = {"shvit_s4": (224, 336, 448), "efficientvit_m4": (128, 256, 384)}
DEPTHS = {"shvit_s4": (4, 7, 6), "efficientvit_m4": (1, 2, 3)}
# Of random weights; how large the maps become with them.
SPREADS = {"shvit_s4": (2, 55, 500), "efficientvit_m4": (2, 8, 35)}
MEANS = {"bn.weight": 0.7, "pre_norm.weight": 1.0, "running_var": 1.0}
PARTIAL, QK, HEADS, KERNELS, WINDOW = (48, 72, 96), 16, 4, (7, 5, 3, 3), 7


def shapes(backbone: str, dim: int = 256, classes: int = 80) -> dict[str, Shape]:
    """Of all arrays in a detector's ``state_dict``."""
    inner = {f"backbone.{k}": v for k, v in _backbone(backbone)}
    return inner | dict(_neck(DIMS[backbone], dim)) | dict(_head(dim, classes))


def _conv(name: str, out: int, inside: int, kernel: int = 1) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", (out, inside, kernel, kernel)
    yield f"{name}.bias", (out,)


def _conv_bn(name: str, out: int, inside: int, kernel: int = 1) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.c.weight", (out, inside, kernel, kernel)
    yield from ((f"{name}.bn.{part}", (out,)) for part in NORMS)
    yield f"{name}.bn.num_batches_tracked", ()


def _ffn(name: str, dim: int) -> Iterator[tuple[str, Shape]]:
    yield from _conv_bn(f"{name}.pw1", 2 * dim, dim)
    yield from _conv_bn(f"{name}.pw2", dim, 2 * dim)


def _backbone(name: str) -> Iterator[tuple[str, Shape]]:
    dims = DIMS[name]
    widths = (3, *(dims[0] // n for n in (8, 4, 2, 1)))
    for i in range(4):
        yield from _conv_bn(f"patch_embed.{2 * i}", widths[i + 1], widths[i], 3)
    for stage, (dim, depth) in enumerate(zip(dims, DEPTHS[name], strict=True)):
        blocks = f"blocks{stage + 1}"
        if stage:
            yield from _down(blocks, dims[stage - 1], dim)
        block = _shvit_block if name == "shvit_s4" else _efficientvit_block
        for i in range(depth):
            yield from block(f"{blocks}.{i + 3 * bool(stage)}", dim, stage)


def _down(name: str, before: int, dim: int) -> Iterator[tuple[str, Shape]]:
    hidden = 4 * before
    for i, width in ((0, before), (2, dim)):
        yield from _conv_bn(f"{name}.{i}.0.m", width, 1, 3)
        yield from _ffn(f"{name}.{i}.1.m", width)
    yield from _conv_bn(f"{name}.1.conv1", hidden, before)
    yield from _conv_bn(f"{name}.1.conv2", hidden, 1, 3)
    yield from _conv(f"{name}.1.se.fc1", before, hidden)
    yield from _conv(f"{name}.1.se.fc2", hidden, before)
    yield from _conv_bn(f"{name}.1.conv3", dim, hidden)


def _shvit_block(name: str, dim: int, stage: int) -> Iterator[tuple[str, Shape]]:
    yield from _conv_bn(f"{name}.conv.m", dim, 1, 3)
    if stage:
        part = PARTIAL[stage]
        yield from ((f"{name}.mixer.m.pre_norm.{kind}", (part,)) for kind in NORMS[:2])
        yield from _conv_bn(f"{name}.mixer.m.qkv", 2 * QK + part, part)
        yield from _conv_bn(f"{name}.mixer.m.proj.1", dim, dim)
    yield from _ffn(f"{name}.ffn.m", dim)


def _efficientvit_block(name: str, dim: int, stage: int) -> Iterator[tuple[str, Shape]]:
    for i in (0, 1):
        yield from _conv_bn(f"{name}.dw{i}.m", dim, 1, 3)
        yield from _ffn(f"{name}.ffn{i}.m", dim)
    attn, share = f"{name}.mixer.m.attn", dim // HEADS
    for i, kernel in enumerate(KERNELS):
        yield from _conv_bn(f"{attn}.qkvs.{i}", 2 * QK + share, share)
        yield from _conv_bn(f"{attn}.dws.{i}", QK, 1, kernel)
    yield from _conv_bn(f"{attn}.proj.1", dim, dim)
    yield f"{attn}.attention_biases", (HEADS, WINDOW**2)
    yield f"{attn}.attention_bias_idxs", (WINDOW**2, WINDOW**2)


def _neck(dims: tuple[int, ...], dim: int) -> Iterator[tuple[str, Shape]]:
    for i, width in enumerate(dims):
        yield from _conv(f"neck.lateral_convs.{i}.conv", dim, width)
        yield from _conv(f"neck.fpn_convs.{i}.conv", dim, dim, 3)
    yield from _conv("neck.fpn_convs.3.conv", dim, dims[-1], 3)
    yield from _conv("neck.extra_trans_convs.0.conv", dim, dim, 2)
    yield from _conv("neck.extra_fpn_convs.0.conv", dim, dim, 3)


def _head(dim: int, classes: int) -> Iterator[tuple[str, Shape]]:
    for i in range(4):
        yield from _conv(f"bbox_head.cls_convs.{i}.conv", dim, dim, 3)
        yield from _conv(f"bbox_head.reg_convs.{i}.conv", dim, dim, 3)
    yield from _conv("bbox_head.retina_cls", 9 * classes, dim, 3)
    yield from _conv("bbox_head.retina_reg", 36, dim, 3)


def weights(backbone: str, dim: int, classes: int, seed: int = 0) -> Arrays:
    """None of the numbers is the neutral one. Boxes stay near their anchors, and attention is
    not on single pixels, which would multiply what is rounded."""
    rng = np.random.default_rng(seed)
    made = {}
    for name, shape in shapes(backbone, dim, classes).items():
        spread = math.sqrt(1.5 / math.prod(shape[1:])) if len(shape) > 1 else 0.2
        spread *= 0.2 if "retina_reg" in name or ".qkvs." in name else 1
        array = rng.standard_normal(shape) * spread
        array += next((mean for end, mean in MEANS.items() if name.endswith(end)), 0)
        made[name] = np.asarray(array, np.float32)
    for i, spread in enumerate(SPREADS[backbone]):
        made[f"neck.lateral_convs.{i}.conv.weight"] /= spread
    made["neck.fpn_convs.3.conv.weight"] /= spread
    return made


def conv(w: Arrays, name: str, x: Array, stride: int = 1) -> Array:
    """(C, H, W) to (out, H / stride, W / stride), padded so that stride 1 keeps the size."""
    kernel = w[f"{name}.weight"].astype(np.float64)
    size = kernel.shape[-1]
    x = np.pad(x, ((0, 0), *[(size // 2, size // 2)] * 2))
    seen = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
    y = np.tensordot(kernel, seen[:, ::stride, ::stride], ((1, 2, 3), (0, 3, 4)))
    return y + w[f"{name}.bias"][:, None, None]


def transposed(w: Arrays, name: str, x: Array) -> Array:
    """(C, H, W) to (out, 2H, 2W): each pixel becomes four, which no other reaches."""
    kernel = w[f"{name}.weight"].astype(np.float64)  # (in, out, 2, 2)
    y = np.einsum("chw,coab->ohawb", x, kernel)
    out, height, _, width, _ = y.shape
    return y.reshape(out, 2 * height, 2 * width) + w[f"{name}.bias"][:, None, None]


def neck(w: Arrays, maps: list[Array]) -> list[Array]:
    """Three (C, h, w) maps from fine to coarse to five."""
    lateral = [conv(w, f"neck.lateral_convs.{i}.conv", x) for i, x in enumerate(maps)]
    for i in (1, 0):
        lateral[i] = lateral[i] + lateral[i + 1].repeat(2, axis=1).repeat(2, axis=2)
    finest = transposed(w, "neck.extra_trans_convs.0.conv", lateral[0])
    inner = [conv(w, f"neck.fpn_convs.{i}.conv", x) for i, x in enumerate(lateral)]
    coarsest = conv(w, "neck.fpn_convs.3.conv", maps[-1], stride=2)
    return [conv(w, "neck.extra_fpn_convs.0.conv", finest), *inner, coarsest]


def head(w: Arrays, x: Array) -> tuple[Array, Array]:
    """A (C, h, w) map to (N, classes) logits and (N, 4) deltas of its anchors."""
    found = []
    for kind, width in (("cls", -1), ("reg", 4)):
        y = x
        for i in range(4):
            y = np.maximum(conv(w, f"bbox_head.{kind}_convs.{i}.conv", y), 0)
        y = conv(w, f"bbox_head.retina_{kind}", y)
        width = len(y) // 9 if width < 0 else width
        found.append(y.transpose(1, 2, 0).reshape(-1, width))
    return found[0], found[1]


def grid_anchors(height: int, width: int, stride: int) -> Array:
    """(h x w x 9, 4) left, top, right, bottom in pixels."""
    scales = np.array([4 * 2 ** (i / 3) for i in range(3)])
    roots = np.sqrt([0.5, 1.0, 2.0])
    ws = (stride / roots[:, None] * scales).ravel()
    hs = (stride * roots[:, None] * scales).ravel()
    base = np.stack([-ws / 2, -hs / 2, ws / 2, hs / 2], axis=-1)
    shifts = [(x, y, x, y) for y in range(height) for x in range(width)]
    return (np.array(shifts)[:, None] * stride + base).reshape(-1, 4)


def decoded(anchors: Array, deltas: Array, size: tuple[int, int] | None = None) -> Array:
    """Anchors moved by deltas, as corners in pixels, cut off at an image's edges."""
    x0, y0, x1, y1 = anchors.T
    dx, dy, dw, dh = deltas.T
    most = abs(math.log(16 / 1000))
    w = (x1 - x0) * np.exp(np.clip(dw, -most, most))
    h = (y1 - y0) * np.exp(np.clip(dh, -most, most))
    x, y = (x0 + x1) / 2 + dx * (x1 - x0), (y0 + y1) / 2 + dy * (y1 - y0)
    boxes = np.stack([x - w / 2, y - h / 2, x + w / 2, y + h / 2], axis=-1)
    return boxes if size is None else np.clip(boxes, 0, [*size, *size])


def results(levels: list[tuple[Array, Array, Array]], size: tuple[int, int]) -> Array:
    """(n, 6) corners, score and class of what is found, the surest first. A level has logits,
    deltas and anchors; of each the ``BEFORE`` surest pairs of anchor and class are judged."""
    found = []
    for logits, deltas, anchors in levels:
        scores = 1 / (1 + np.exp(-logits))
        at = np.argwhere(scores > LEAST)
        at = at[np.argsort(-scores[tuple(at.T)], kind="stable")][:BEFORE]
        boxes = decoded(anchors[at[:, 0]], deltas[at[:, 0]], size)
        found.append(np.column_stack([boxes, scores[tuple(at.T)], at[:, 1]]))
    rows = np.concatenate(found)
    rows = rows[np.argsort(-rows[:, 4], kind="stable")]
    kept: list[Array] = []
    for row in rows:
        if not any(r[5] == row[5] and _iou(r, row) > IOU for r in kept):
            kept.append(row)
    return np.array(kept[:KEPT])


def _iou(a: Array, b: Array) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    common = max(width, 0) * max(height, 0)
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return common / max(sum(areas) - common, 1e-12)
