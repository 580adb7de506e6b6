"""Pools and upsampling: MLX spells them with reshapes of rank six, Core ML has an op."""

from __future__ import annotations

import math

from ..graph import Graph, Node


def raise_pools(graph: Graph) -> Graph:
    """``Reduce(windows of x)`` becomes ``Pool(x; kind, kernel, stride, low, high)``.

    MLX makes the windows with a Reshape and a Transpose when they tile the map, with
    AsStrided otherwise, and leaves the axes of each window at 3 and 4. A mean is a sum here,
    which ``raise_means`` knows.
    """
    nodes = {n.outputs[0].name: n for n in graph.nodes}
    for node in graph.nodes:
        if node.op != "Reduce" or node["kind"] not in _FILL or node["axes"] != (3, 4):
            continue
        windows = graph.producer.get(node.inputs[0])
        if windows is None or len(windows.output.shape) != 6 or node["keep"]:
            continue
        found = _tiled(graph, windows) or _strided(graph, windows, _FILL[node["kind"]])
        if found:
            x, stride, low, high = found
            args = (node["kind"], windows.output.shape[3:5], stride, low, high)
            nodes[node.output.name] = Node("Pool", (x,), node.outputs, args)
    return graph.with_nodes(nodes.values())


Found = tuple[str, tuple[int, int], tuple[int, int], tuple[int, int]]
_FILL = {"sum": 0.0, "max": -math.inf}  # what a pool's own padding is


def _tiled(graph: Graph, windows: Node) -> Found | None:
    split = graph.producer.get(windows.inputs[0])
    if windows.op != "Transpose" or windows["axes"] != (0, 1, 3, 2, 4, 5) or split is None:
        return None
    B, h, kh, w, kw, C = split.output.shape
    if split.op != "Reshape" or graph.shape(split.inputs[0]) != (B, h * kh, w * kw, C):
        return None
    return split.inputs[0], (kh, kw), (0, 0), (0, 0)


def _strided(graph: Graph, windows: Node, fill: float) -> Found | None:
    flat = graph.producer.get(windows.inputs[0])
    if windows.op != "AsStrided" or windows["offset"] != 0:
        return None
    source = flat.inputs[0] if flat is not None and flat.op == "Reshape" else windows.inputs[0]
    if len(graph.shape(source)) != 4:
        return None
    B, H, W, C = graph.shape(source)
    _, rows, columns, kh, kw, _ = windows.output.shape
    sb, sy, sx, *inside = windows["strides"]
    if inside != [W * C, C, 1] or sy % (W * C) or sx % C or (sb != H * W * C and B > 1):
        return None
    stride = (sy // (W * C), sx // C)
    steps = zip((H - kh, W - kw), stride, strict=True)
    if windows.output.shape[::5] != (B, C) or (rows, columns) != tuple(
        size // step + 1 if step else 0 for size, step in steps
    ):
        return None
    pad = graph.producer.get(source)
    if pad is not None and _is_own_padding(graph, pad, (kh, kw), fill):
        _, low, high = pad.args
        return pad.inputs[0], stride, tuple(low[1:3]), tuple(high[1:3])
    return source, stride, (0, 0), (0, 0)


def _is_own_padding(graph: Graph, pad: Node, kernel: tuple[int, ...], fill: float) -> bool:
    """Whether a pool's own padding does the same: less than a window of ``fill`` a side."""
    if pad.op != "Pad" or len(pad["axes"]) != 4:
        return False
    value = graph.constants.get(pad.inputs[1])
    _, low, high = pad.args
    whole = not any((low[0], high[0], low[3], high[3]))
    widths = zip((*low[1:3], *high[1:3]), kernel * 2, strict=True)
    return value is not None and value == fill and whole and all(0 <= n < k for n, k in widths)


def raise_upsampling(graph: Graph) -> Graph:
    """``Reshape(Broadcast(Reshape(x)))`` that repeats pixels becomes ``Resize(x)``."""
    nodes = {n.outputs[0].name: n for n in graph.nodes}
    for node in graph.nodes:
        repeat = graph.producer.get(node.inputs[0]) if node.op == "Reshape" else None
        spread = graph.producer.get(repeat.inputs[0]) if repeat is not None else None
        if (
            repeat is None
            or spread is None
            or (repeat.op, spread.op) != ("Broadcast", "Reshape")
        ):
            continue
        x = spread.inputs[0]
        if len(graph.shape(x)) != 4 or len(repeat.output.shape) != 6:
            continue
        B, H, W, C = graph.shape(x)
        _, h, sh, w, sw, _ = repeat.output.shape
        spaced = spread.output.shape == (B, H, 1, W, 1, C)
        if spaced and (h, w) == (H, W) and node.output.shape == (B, H * sh, W * sw, C):
            args = ((H * sh, W * sw), "nearest")
            nodes[node.output.name] = Node("Resize", (x,), node.outputs, args)
    return graph.with_nodes(nodes.values())
