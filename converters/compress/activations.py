"""Eight-bit activations: their ranges, and where they are rounded.

A quantize/dequantize pair goes in front of the layers that read a value, nowhere else: so
never between a convolution and its activation function, which Core ML fuses into it. What
residual additions, norms and attention read stays float.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from ..graph.graph import Array, Graph, Node, Value
from .calibrate import Divisors
from .equalization import groups_of
from .rounding import Statistics

_STEPS = 255
_SHARES = np.linspace(1, 0.3, 36)  # of the range without clipping
_BINS = 2048


@dataclass(frozen=True)
class Range:
    """How a value is rounded to int8: ``round(x / scale) + zero_point``."""

    scale: float
    zero_point: int = 0

    def rounded(self, x: Array) -> Array:
        """``x`` as int8 gives it back."""
        codes = np.clip(np.rint(x / self.scale) + self.zero_point, -128, 127)
        return (codes - self.zero_point) * self.scale

    @property
    def ends(self) -> tuple[float, float]:
        """The least and the greatest value that it holds."""
        return (-128 - self.zero_point) * self.scale, (127 - self.zero_point) * self.scale

    def cost(self, values: Array, weights: Array | float) -> float:
        """The squared error of rounding and clipping together."""
        return float((np.square(values - self.rounded(values)) * weights).sum())


def symmetric(low: float, high: float) -> Range:
    """Zero is code zero."""
    top = max(-low, high, 1e-4)  # less would be lost in half precision
    return Range(float(np.float16(top / 127)))


def affine(low: float, high: float) -> Range:
    """All codes are used, whatever the signs."""
    low, high = min(low, 0.0), max(high, 0.0)
    scale = float(np.float16((high - low) / _STEPS)) or 2**-14
    return Range(scale, int(np.clip(np.rint(-128 - low / scale), -128, 127)))


def range_of(low: float, high: float) -> Range:
    """Symmetric where a value takes both signs alike, with a zero point where it does not."""
    low, high = min(low, 0.0), max(high, 0.0)
    alike = -low > 0.5 * high and high > -0.5 * low
    return (symmetric if alike else affine)(low, high)


def minmax(values: Array, weights: Array | float = 1.0) -> Range:
    """Everything seen is inside."""
    return range_of(float(values.min()), float(values.max()))


def percentile(values: Array, weights: Array | float = 1.0) -> Range:
    """All but one value in ten thousand at each end is inside."""
    low, high = np.percentile(values, [0.01, 99.99])
    return range_of(float(low), float(high))


def mse(values: Array, weights: Array | float = 1.0) -> Range:
    """The range with the least squared error, each channel's counted by its ``weights``.

    Choi et al., "Accurate and efficient 2-bit quantized neural networks", 2019.
    """
    low, high = float(values.min()), float(values.max())
    tried = [range_of(low * share, high * share) for share in _SHARES]
    return min(tried, key=lambda r: r.cost(values, weights))


def kl(values: Array, weights: Array | float = 1.0) -> Range:
    """The range whose rounded histogram diverges least from the histogram of the values.

    Migacz, "8-bit inference with TensorRT", 2017. A histogram does not say how far clipping
    moves a value: of ranges that cost more than one without clipping, none is taken.
    """
    low, high = float(values.min()), float(values.max())
    counts, edges = np.histogram(values, bins=_BINS)
    middles = (edges[1:] + edges[:-1]) / 2
    whole, *clipped = (range_of(low * share, high * share) for share in _SHARES)
    bound = whole.cost(values, weights)
    tried = [whole, *(r for r in clipped if r.cost(values, weights) <= bound)]
    return min(tried, key=lambda r: _divergence(counts, middles, r))


def _divergence(counts: Array, middles: Array, tried: Range) -> float:
    """KL of the clipped histogram, and what rounding makes of the part that is not clipped."""
    codes = np.rint(middles / tried.scale) + tried.zero_point
    inside = np.flatnonzero((codes >= -128) & (codes <= 127))
    first, last = inside[0], inside[-1]
    wanted = counts[first : last + 1].astype(np.float64)
    seen = wanted > 0
    index = codes[inside].astype(np.intp) + 128
    total, bins = np.bincount(index, wanted, 256), np.bincount(index, seen, 256)
    spread = np.where(seen, (total / np.maximum(bins, 1))[index], 0)
    wanted[0] += counts[:first].sum()
    wanted[-1] += counts[last + 1 :].sum()
    p, q = wanted / wanted.sum(), spread / spread.sum()
    some = p > 0
    return float((p[some] * np.log(p[some] / np.maximum(q[some], 1e-9))).sum())


def auto(values: Array, weights: Array | float = 1.0) -> Range:
    """Of all ways and both schemes, the one that the layers behind it notice least.

    The choice for each layer is that of Lee et al., "Q-HyViT: post-training quantization of
    hybrid vision transformers", 2023.
    """
    ends = [way(values, weights).ends for way in (minmax, percentile, mse, kl)]
    tried = [scheme(*e) for e in ends for scheme in (symmetric, affine)]
    return min(tried, key=lambda r: r.cost(values, weights))


# ``range(values, weights)`` of values (some, channels) and what an error in each costs
RANGES: dict[str, Callable[..., Range]] = {
    "minmax": minmax,
    "percentile": percentile,
    "mse": mse,
    "kl": kl,
    "auto": auto,
}


def input_ranges(
    graph: Graph, statistics: Mapping[str, Statistics], paths: Collection[str], method: str
) -> dict[str, Range]:
    """A range for each value that the layers with these weights read.

    A layer that is applied at one position only (squeeze and excitation, a head) is bound by
    its weights, not by its products: what it reads stays float.
    """
    values: dict[str, Array] = {}
    weights: dict[str, Array] = {}
    for node in graph.nodes:
        path = node.inputs[1] if len(node.inputs) > 1 else ""
        if path not in paths or path not in statistics or _positions(node) == 1:
            continue
        x = node.inputs[0]
        values.setdefault(x, statistics[path].values)
        weights[x] = weights.get(x, 0) + _energy(node, graph.constants[path])
    return {x: RANGES[method](values[x], weights[x]) for x in values}


def trained_ranges(
    graph: Graph, ranges: Mapping[str, tuple[float, int]], divisors: Mapping[str, Divisors]
) -> dict[str, Range]:
    """Those that a model was trained with, by the value that a layer reads; ``divisors`` say
    by what it is divided here."""
    found = {}
    for node in graph.nodes:
        path = node.inputs[1] if len(node.inputs) > 1 else ""
        if path in ranges:
            scale, zero_point = ranges[path]
            divisor = divisors.get(path, Divisors()).input
            found[node.inputs[0]] = Range(scale / divisor, zero_point)
    return found


def _energy(node: Node, weight: Array) -> Array:
    """For each input channel of a layer the squares of its weights, summed."""
    squares = np.square(weight).reshape(groups_of(node), -1, *weight.shape[1:])
    return squares.sum(axis=(1, *range(3, squares.ndim))).ravel()


def _positions(node: Node) -> int:
    shape = node.output.shape
    return math.prod(shape[2:] if node.op != "Linear" else shape[:-1])


def quantize_inputs(graph: Graph, ranges: Mapping[str, Range], paths: Collection[str]) -> Graph:
    """``Layer(x, w)`` becomes ``Layer(Dequantize(Quantize(x)), w)``, one pair a value."""
    nodes: list[Node] = []
    done: dict[str, str] = {}
    for node in graph.nodes:
        x = node.inputs[0] if node.inputs else ""
        reads = len(node.inputs) > 1 and node.inputs[1] in paths and x in ranges
        if reads and x not in done:
            pair = _pair(graph.values[x], ranges[x])
            nodes += pair
            done[x] = pair[1].output.name
        if reads:
            node = replace(node, inputs=(done[x], *node.inputs[1:]))
        nodes.append(node)
    return graph.with_nodes(nodes)


def _pair(value: Value, given: Range) -> tuple[Node, Node]:
    codes = Value(f"{value.name}_int8", value.shape, "int8")
    back = Value(f"{value.name}_rounded", value.shape, value.dtype)
    args = (given.scale, given.zero_point)
    return (
        Node("Quantize", (value.name,), (codes,), args),
        Node("Dequantize", (codes.name,), (back,), args),
    )
