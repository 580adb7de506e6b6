"""Keep half precision inside its range: 65,504 at most, and no precision below 6e-5.

Ranges are measured with MLX on calibration images. A residual stream that grows too large
is stored divided by a power of two, which is exact and costs no operation: the convolutions
around it take the factor into their weights, layer norms do not see it. What cannot be
rescaled, because an activation or a softmax needs its true value, is computed in float32.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import mlx.core as mx
import numpy as np

from ..function import Function, ImageForm
from ..graph.evaluate import can_evaluate, peaks
from ..graph.graph import Array, Graph, Node
from ..graph.ops import op, scale_of
from ..graph.passes import run_passes
from ..graph.trace import trace
from .exact import SMALL_PEAK, exact_values

LARGEST = 65504.0
MARGIN = 16.0  # other images may reach further than those measured
TARGET = 2.0**10  # where the peak of a rescaled stream goes
MAX_SAMPLES = 8  # calibration images that are looked at
MAX_UPSCALE_LOG2 = 10  # the weights grow by as much, and have a range as well
LARGE, SMALL = 384, 256  # pixels: what is measured at another size, and at which
LEAST = 2.0**-12  # an output that stays below has fewer bits than half precision has
MIN_TAPS = 25  # of a kernel: of fewer, one takes on too much


@dataclass(frozen=True)
class Safety:
    """What was measured and done about it.

    ``rescaled`` gives for every stored value the power of two it was divided by,
    ``float32`` the values computed in full precision, ``layers`` the modules they are in;
    ``at`` is the module with the largest value of all.
    """

    peak: float = 0.0
    at: str = ""
    rescaled: Mapping[str, int] = field(default_factory=dict)
    float32: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()

    def to_json(self) -> str:
        """A summary for a package's metadata."""
        return json.dumps(
            {
                "peak": float(f"{self.peak:.4g}"),
                "at": self.at,
                "rescaled_values": len(self.rescaled),
                "largest_power": max(self.rescaled.values(), default=0),
                "float32": list(self.layers),
            }
        )


def make_safe(
    graph: Graph, function: Function, calibration: Iterable[tuple[Array, ...]] = ()
) -> tuple[Graph, Safety]:
    """Rescale what would leave half precision's range, exactly.

    Ranges come from ``calibration`` (inputs of ``function``, as arrays) and from a test
    pattern where an image goes in, or else the example inputs. The graph is in
    MLX's layout, after all passes. ``set_precision`` is to keep what ``Safety.float32`` names.
    Raises UnsupportedOpError for an operation whose range cannot be measured.
    """
    graph.refuse(node for node in graph.nodes if not can_evaluate(node))
    ranges = _quick_peaks(graph, function) | _odd_inputs(graph, function)
    for inputs in calibration:
        for name, peak in peaks(graph, *inputs).items():
            ranges[name] = max(ranges.get(name, 0.0), peak)
    return rescale(graph, ranges)


def _quick_peaks(graph: Graph, function: Function) -> dict[str, float]:
    """Peaks on the examples; a large image is measured small if the graph is the same."""
    small = replace(function, inputs=_small(function))
    if [x.shape for x in small.inputs] != [x.shape for x in function.inputs]:
        traced = run_passes(trace(small.model, *small.inputs, fn=small.fn))
        if _alike(traced, graph):
            return peaks(traced, *_examples(small))
    return peaks(graph, *_examples(function))


def _small(function: Function) -> tuple[mx.array, ...]:
    """The example inputs, with small images in place of large ones, of a size that the model
    takes: images of one are multiples of its stride."""
    config = getattr(function.model, "config", None)

    def small(form: ImageForm | None, x: mx.array) -> mx.array:
        is_large = form is not None and max(x.shape[1:3]) > LARGE
        if not is_large or getattr(config, "only_size", None):
            return x
        step = getattr(config, "stride", 1)
        side = -(-SMALL // step) * step
        return mx.zeros((x.shape[0], side, side, x.shape[3]))

    return tuple(map(small, function.forms, function.inputs))


def _odd_inputs(graph: Graph, function: Function) -> dict[str, float]:
    """Peaks of those example inputs that half precision cannot hold, or barely; no image's is
    one."""
    given = zip(graph.inputs, map(np.array, function.inputs), strict=True)
    found = {v.name: float(np.abs(x).max(initial=0)) for v, x in given if x.dtype.kind == "f"}
    return {n: peak for n, peak in found.items() if peak > LARGEST / 2 or 0 < peak < SMALL_PEAK}


def _alike(a: Graph, b: Graph) -> bool:
    """Whether two graphs are the same operations on values of the same names."""
    return [(n.op, [v.name for v in n.outputs]) for n in a.nodes] == [
        (n.op, [v.name for v in n.outputs]) for n in b.nodes
    ]


def _examples(function: Function) -> list[Array]:
    """Edges at several scales and noise, instead of images."""
    arrays = [np.array(x) for x in function.inputs]
    pairs = zip(function.forms, arrays, strict=True)
    return [form.given(_pattern(x.shape)) if form else x for form, x in pairs]


def _pattern(shape: Sequence[int]) -> Array:
    """(B, H, W, C) pixel values."""
    B, H, W, C = shape
    y, x, c = np.meshgrid(np.arange(H), np.arange(W), np.arange(C), indexing="ij")
    blocks = sum(((x >> s) ^ (y >> s) ^ c) & 1 for s in range(1, 8))
    noise = np.random.default_rng(0).integers(0, 64, (H, W, C))
    return np.broadcast_to(blocks * 27 + noise, (B, H, W, C))


def rescale(graph: Graph, ranges: Mapping[str, float]) -> tuple[Graph, Safety]:
    """As ``make_safe``, with the largest absolute value of each value given."""
    powers = _powers(graph, ranges)
    safe = _apply(graph, powers) if powers else graph
    stored = {name: peak * 2.0 ** -powers.get(name, 0) for name, peak in ranges.items()}
    hot = {name for name, peak in stored.items() if peak > LARGEST / 2}
    hot |= {name for name in graph.outputs if 0 < stored.get(name, 0.0) < LEAST}
    hot |= {name for name, value in safe.constants.items() if _is_too_large(value)}
    exact = exact_values(safe, stored)
    kept = [
        node.outputs[0].name
        for node in safe.nodes
        if node.outputs[0].name in exact
        or not hot.isdisjoint((*node.inputs, *(v.name for v in node.outputs)))
    ]
    highest = max(ranges, key=lambda name: ranges[name], default="")
    maker = graph.producer.get(highest)
    return safe, Safety(
        peak=ranges.get(highest, 0.0),
        at=graph.place(maker) if maker else "the input",
        rescaled=powers,
        float32=tuple(kept),
        layers=tuple(dict.fromkeys(safe.place(safe.producer[name]) for name in kept)),
    )


def _is_too_large(value: Array) -> bool:
    """Whether a constant has finite values that half precision has not."""
    finite = value[np.isfinite(value)]
    return finite.size > 0 and bool(np.abs(finite).max() > LARGEST)


def _powers(graph: Graph, ranges: Mapping[str, float]) -> dict[str, int]:
    """For each value to be divided, the exponent of its divisor."""
    streams = _Streams(graph)
    peak: dict[str, float] = {}
    for name, value in ranges.items():
        value = value if math.isfinite(value) else 1e38
        root = streams.root(name)
        peak[root] = max(peak.get(root, 0.0), value)
    power = {
        root: max(
            -MAX_UPSCALE_LOG2, math.ceil(math.log2(value / (TARGET if value > 1 else 1.0)))
        )
        for root, value in peak.items()
        if root not in streams.fixed and (value > LARGEST / MARGIN or 0 < value < SMALL_PEAK)
    }
    return {name: power[root] for name in ranges if (root := streams.root(name)) in power}


class _Streams:
    """Values that must share a scale, joined; ``fixed`` are those that must keep theirs."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.parent: dict[str, str] = {}
        pinned = {*graph.outputs, *(v.name for v in graph.inputs)}
        for node in graph.nodes:
            pinned |= self._visit(node)
        self.fixed = {self.root(name) for name in pinned}

    def root(self, name: str) -> str:
        while (above := self.parent.get(name, name)) != name:
            name = above
        return name

    def _join(self, names: Iterable[str]) -> None:
        first, *others = (self.root(n) for n in names)
        for other in others:
            if other != first:
                self.parent[other] = first

    def _visit(self, node: Node) -> set[str]:
        """Join what the node ties together, and say what it pins."""
        moving = [i for i in node.inputs if i not in self.graph.constants]
        outputs = [v.name for v in node.outputs]
        match scale_of(node):
            case "linear":
                self._join([*moving, *outputs])
                return set()
            case "weights" if len(moving) == 1:
                return set()
            case "norm":
                return set() if len(node.inputs) > 1 else set(outputs)
            case "product":
                return self._product(moving, outputs)
        return {*moving, *outputs}

    def _product(self, moving: list[str], outputs: list[str]) -> set[str]:
        """A gate keeps its scale, the product follows the other factor."""
        makers = {i: self.graph.producer.get(i) for i in moving}
        gates = {i for i, maker in makers.items() if maker is not None and op(maker.op).is_gate}
        free = [i for i in moving if i not in gates]
        if len(free) != 1:
            return {*moving, *outputs}
        self._join([*free, *outputs])
        return gates


def _apply(graph: Graph, powers: Mapping[str, int]) -> Graph:
    constants = dict(graph.constants)

    def scaled(name: str, factor: float) -> str:
        """The constant times ``factor``, under its own name while one node reads it."""
        if factor == 1:
            return name
        made = name if graph.uses[name] == 1 else f"{name}.x{factor:g}"
        constants[made] = (graph.constants[name] * np.float32(factor)).astype(np.float32)
        return made

    def visit(node: Node) -> Node:
        before = powers.get(node.inputs[0], 0) if node.inputs else 0
        after = powers.get(node.outputs[0].name, 0)
        scale = scale_of(node)
        if scale == "weights":
            x, weight, *bias = node.inputs
            factors = (
                scaled(weight, 2.0 ** (before - after)),
                *(scaled(b, 2.0**-after) for b in bias),
            )
            return replace(node, inputs=(x, *factors))
        if scale == "norm":
            x, *affine = node.inputs
            axes, eps = node.args
            inputs = (x, *(scaled(a, 2.0**-after) for a in affine))
            return replace(node, inputs=inputs, args=(axes, eps * 4.0**-before))
        if scale == "linear" and after:
            inputs = tuple(
                scaled(i, 2.0**-after) if i in graph.constants else i for i in node.inputs
            )
            return replace(node, inputs=inputs)
        return node

    return graph.with_nodes([visit(n) for n in graph.nodes], constants=constants)


def round_kernels(graph: Graph, keep: Iterable[str] = ()) -> Graph:
    """Round depthwise kernels to half precision so that their sums stay what they were.

    Tap by tap, the largest first, each takes on what those before it were rounded by: to a
    smooth map the kernel does what it did. What ``keep`` names stays as it is.
    """
    kept = frozenset(keep)
    kernels = {
        node.inputs[1]
        for node in graph.nodes
        if node.op == "Convolution" and node.outputs[0].name not in kept
    }
    constants = {
        name: _carried(value) if name in kernels and _is_depthwise(value) else value
        for name, value in graph.constants.items()
    }
    return replace(graph, constants=constants)


def _is_depthwise(kernel: Array) -> bool:
    return kernel.ndim == 4 and kernel.shape[-1] == 1 and kernel[0].size >= MIN_TAPS


def _carried(kernel: Array) -> Array:
    """A (C, h, w, 1) kernel in half precision, each rounding error carried to the next tap."""
    taps = kernel.reshape(len(kernel), -1).astype(np.float64)
    order = np.argsort(-np.abs(taps), axis=1)
    rounded = np.zeros_like(taps)
    carry = np.zeros((len(taps), 1))
    for tap in np.split(order, order.shape[1], axis=1):
        wanted = np.take_along_axis(taps, tap, axis=1) + carry
        found = wanted.astype(np.float16).astype(np.float64)
        np.put_along_axis(rounded, tap, found, axis=1)
        carry = wanted - found
    return rounded.reshape(kernel.shape).astype(np.float32)
