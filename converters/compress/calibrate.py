"""What a model's layers see: second moments, means and values of their inputs, on images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np

from ondevice.errors import ConfigError, ImageError

from ..function import Function
from ..graph.evaluate import evaluate
from ..graph.graph import Array, Graph, Node
from ..graph.ops import op
from ..graph.passes import run_passes
from ..graph.trace import trace
from .rounding import Statistics

LEAST = 8  # images; fewer say more of themselves than of a layer
BATCH = 16
_POSITIONS = 64  # of each map, and image, that enter the moments
_SAMPLES = 1 << 18  # values of a layer's input that are kept for its range


@dataclass(frozen=True)
class Calibration:
    """Images as a model takes them, and the graph for ``BATCH`` of them, in MLX's layout."""

    graph: Graph
    batches: tuple[tuple[Array, ...], ...]

    def outputs(self, constants: Mapping[str, Any] | None = None) -> list[Array]:
        """The first output for each batch, with other ``constants`` if given."""
        graph = replace(self.graph, constants={**self.graph.constants, **(constants or {})})
        return [np.array(evaluate(graph, *b)[graph.outputs[-1]]) for b in self.batches]


def calibrate(function: Function, samples: Iterable[Any]) -> Calibration:
    """Read the samples and trace the model for a batch of them.

    A sample is what ``verify`` takes: an image, or an array as the module has it. Raises
    ImageError for images that cannot be read, ConfigError for too few or empty ones.
    """
    arrays = list(arrays_of(function, samples))
    if len(arrays) < LEAST:
        raise ConfigError(f"{len(arrays)} calibration samples; give {LEAST} or more")
    if all(x.min() == x.max() for sample in arrays for x in sample):
        raise ConfigError("every calibration sample has one value everywhere: nothing to learn")
    arrays = arrays[: len(arrays) // LEAST * LEAST]
    size = next(b for b in (BATCH, LEAST) if len(arrays) % b == 0)
    groups = (arrays[i : i + size] for i in range(0, len(arrays), size))
    batches = tuple(tuple(np.concatenate(x) for x in zip(*g, strict=True)) for g in groups)
    inputs = tuple(mx.array(x) for x in batches[0])
    wide = replace(function, inputs=inputs)
    return Calibration(run_passes(trace(wide.model, *inputs, fn=wide.fn)), batches)


def arrays_of(function: Function, samples: Iterable[Any]) -> Iterator[tuple[Array, ...]]:
    """The inputs of ``function`` that each sample stands for, with a first axis of one.

    Raises ImageError that lists every image that cannot be used, ConfigError for an array that
    does not fit.
    """
    problems: list[str] = []
    for number, sample in enumerate(samples):
        try:
            yield function.given(sample)
        except ImageError as error:
            problems.append(str(error))
        except ConfigError as error:
            raise ConfigError(f"calibration sample {number}: {error}") from error
    if problems:
        raise ImageError("; ".join(problems))


def layers(graph: Graph) -> Iterator[tuple[str, Node]]:
    """Each convolution and linear layer, by its weight's path; not transposed convolutions."""
    for node in graph.nodes:
        if op(node.op).kind != "layer" or node.inputs[1] not in graph.constants:
            continue
        if node.op == "Linear" or (set(node["input_dilation"]) == {1} and not node["flip"]):
            yield node.inputs[1], node


class Divisors(NamedTuple):
    """By what a layer's input and output were divided: its weight was multiplied by the
    input's and divided by the output's, its bias divided by the output's."""

    input: float = 1.0
    output: float = 1.0


def input_divisors(graph: Graph, powers: Mapping[str, int]) -> dict[str, Divisors]:
    """Those of each layer, by its weight's path, given the power of two for each value."""

    def divisor(name: str) -> float:
        return 2.0 ** powers.get(name, 0)

    return {
        path: Divisors(divisor(node.inputs[0]), divisor(node.output.name))
        for path, node in layers(graph)
    }


def measure(
    calibration: Calibration, progress: Callable[[str], None] = lambda _: None
) -> dict[str, Statistics]:
    """Statistics of the input of every layer, by its weight's path."""
    graph = calibration.graph
    found = dict(layers(graph))
    sums: dict[str, list[Any]] = {}
    values: dict[str, list[Array]] = {}
    peaks: dict[str, Array] = {}
    rng = np.random.default_rng(0)
    keep = {node.inputs[0] for node in found.values()}
    share = max(1, _SAMPLES // len(calibration.batches))
    for batch in calibration.batches:
        got = evaluate(graph, *batch, keep=keep)
        for path, node in found.items():
            x = np.array(got[node.inputs[0]])
            rows = x.reshape(-1, x.shape[-1])
            some = rng.integers(0, len(rows), min(len(rows), 1 + share // rows.shape[1]))
            values.setdefault(path, []).append(rows[some])
            peak = np.abs(rows).max(axis=0)
            peaks[path] = np.maximum(peaks.get(path, peak), peak)
            moments = _moments(node, x, graph.shape(path))
            before = sums.get(path)
            sums[path] = (
                [a + b for a, b in zip(before, moments, strict=True)] if before else moments
            )
            progress(path)
    _check_finite(sums)
    return {
        path: Statistics(
            moment / count, mean / count, np.concatenate(values[path]), peaks[path]
        )
        for path, (moment, mean, count) in sums.items()
    }


def _check_finite(sums: Mapping[str, Sequence[Any]]) -> None:
    """NaN would be sorted last and win every comparison that it should lose."""
    if bad := [path for path, (moment, *_) in sums.items() if not np.isfinite(moment).all()]:
        raise ConfigError(
            f"on the calibration samples {len(bad)} of {len(sums)} layers read NaN, infinite "
            f"or too large values, {bad[0]} first: look at the model and the samples"
        )


def _moments(node: Node, x: Array, shape: Sequence[int]) -> list[Any]:
    """Sums of the products and of the values of a layer's inputs, and their count.

    Inputs are ordered as in a channels-first weight: channel, then position in the kernel.
    """
    groups = node["groups"] if node.op == "Convolution" else 1
    columns = _patches(node, x, shape) if node.op == "Convolution" else x
    columns = columns.reshape(-1, groups, math.prod(shape[1:])).swapaxes(0, 1)
    products = columns.swapaxes(1, 2) @ columns
    return [
        products.astype(np.float64),
        columns.sum(axis=1, dtype=np.float64),
        columns.shape[1],
    ]


def _patches(node: Node, x: Array, shape: Sequence[int]) -> Array:
    """What each position of a convolution's output sees: (positions, channels, *kernel)."""
    stride, low, high, dilation = (node[n] for n in ("stride", "low", "high", "dilation"))
    spatial = x.ndim - 2
    x = np.pad(x, [(0, 0), *zip(low, high, strict=True), (0, 0)])
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, shape[1:-1], strict=True)]
    axes = tuple(range(1, 1 + spatial))
    windows = np.lib.stride_tricks.sliding_window_view(x, reach, axis=axes)
    steps = tuple(slice(None, None, s) for s in stride)
    holes = tuple(slice(None, None, d) for d in dilation)
    windows = windows[(slice(None), *steps, slice(None), *holes)]
    return windows[_some(windows.shape[1 : 1 + spatial], len(x))]


def _some(sizes: Sequence[int], images: int) -> tuple[Any, ...]:
    """Indices of at most about ``_POSITIONS`` positions of each map, spread evenly."""
    total = math.prod(sizes)
    flat = np.arange(0, total, max(1, total // _POSITIONS))
    grid = np.unravel_index(flat, tuple(sizes))
    return (np.arange(images)[:, None], *(g[None] for g in grid))
