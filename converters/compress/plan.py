"""From what a user asks for to a graph with its compressed constants."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ondevice.errors import ConfigError
from ondevice.signature.decode import decisions

from ..function import Function
from ..graph.graph import Array, Graph
from .activations import input_ranges, quantize_inputs
from .apply import Compression, compress_graph
from .calibrate import Calibration, Divisors, calibrate, layers, measure
from .equalization import equalize
from .forms import Form
from .kept import keep_bits
from .mixed import Point, agreeing, candidates, front, within
from .pareto import make_front
from .recipe import CompressionRecipe, load_recipe
from .rounding import Statistics
from .storage import Storage

_METADATA = 4096  # bytes of a package that are written after its size is estimated


@dataclass(frozen=True)
class Observed:
    """What a model does on sample images, found out when it is asked for."""

    function: Function
    samples: Sequence[Any] = field(repr=False)

    @cached_property
    def calibration(self) -> Calibration:
        """The samples and the graph for a batch. Raises as ``calibrate``."""
        return calibrate(self.function, self.samples)

    @cached_property
    def statistics(self) -> Mapping[str, Statistics]:
        """Of each layer's input, by its weight's path; nothing without samples."""
        return measure(self.calibration) if self.samples else {}

    @cached_property
    def outputs(self) -> Array:
        """(samples, ...) first output in MLX float32."""
        return np.concatenate(self.calibration.outputs())


@dataclass(frozen=True)
class Request:
    """What ``export`` was asked for: a recipe, images to calibrate on, or limits to search in.

    ``budget`` is the package's size in bytes, ``min_agreement`` the share of calibration
    images on which the compressed model names the same class. ``account`` is given the
    result, with the ``front`` of the search if that is wanted.
    """

    recipe: str | Path | CompressionRecipe = ""
    calibration: Iterable[Any] = ()
    budget: float = 0
    min_agreement: float = 0.0
    account: Callable[[Compression], None] = lambda _: None
    front: bool = False
    observed: list[Observed] = field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "calibration", tuple(self.calibration))  # read once a size

    @property
    def wanted(self) -> bool:
        """Whether anything is to be compressed."""
        return bool(self.recipe or self.searched)

    @property
    def searched(self) -> bool:
        """Whether formats are to be searched."""
        return bool(self.budget or self.min_agreement)

    def observe(self, function: Function) -> Observed:
        """The model on the samples, at the size that is asked for first.

        The functions of a package are compressed by the same figures, and so share weights.
        """
        if not self.observed:
            self.observed.append(Observed(function, tuple(self.calibration)))
        return self.observed[0]

    def check(self) -> Request:
        """Itself; raises ConfigError for what contradicts itself."""
        if self.searched and self.recipe:
            raise ConfigError("give a recipe, or a budget or agreement to search one: not both")
        if self.budget and self.min_agreement:
            raise ConfigError("give a budget or a least agreement, not both")
        if self.front and not self.searched:
            raise ConfigError("a front is of a search: give a budget or a least agreement")
        if not 0 <= self.min_agreement <= 1:
            raise ConfigError(f"agreement is a share of 1, not {self.min_agreement:g}")
        return self


def compress(
    graph: Graph,
    function: Function,
    request: Request | None,
    *,
    storage: Storage,
    precision: str,
    size_of: Callable[[Compression], int],
    float32: Collection[str] = (),
    divisors: Mapping[str, Divisors] | None = None,
) -> Compression:
    """The channels-first ``graph`` compressed as asked; if nothing was, it keeps its own bits.

    ``size_of`` gives the bytes of the package that a compression makes. ``divisors`` say which
    layers, by their weight, read and give less than the model's own.
    Raises ConfigError and ImageError.
    """
    kept = frozenset(float32)
    if request is None or not request.check().wanted:
        who, dtype = function.signature.model, np.dtype(precision)
        return keep_bits(graph, who, storage=storage, dtype=dtype, float32=kept)
    seen = request.observe(function)
    job = _Job(graph, storage, precision, kept, seen, size_of, divisors or {})
    if request.searched:
        job.need_samples("a search")
        result = job.searched(request)
    else:
        recipe = load_recipe(request.recipe, storage)
        if recipe.activations:
            job.need_samples(f"recipe {recipe.name}")
        result = job.compressed(recipe)
    request.account(result)
    return result


@dataclass(frozen=True)
class _Job:
    graph: Graph
    storage: Storage
    precision: str
    float32: frozenset[str]
    seen: Observed = field(repr=False)
    size_of: Callable[[Compression], int]
    divisors: Mapping[str, Divisors] = field(default_factory=dict)
    known: dict[Any, Form | None] = field(default_factory=dict, repr=False)

    def need_samples(self, who: str) -> None:
        if not self.seen.samples:
            raise ConfigError(f"{who} needs calibration samples: --calibrate FOLDER")

    @cached_property
    def statistics(self) -> Mapping[str, Statistics]:
        """Those of the rescaled model."""
        found = self.seen.statistics
        by = {
            path: np.full(len(s.peaks), self.divisors.get(path, Divisors()).input)
            for path, s in found.items()
        }
        return {path: s.divided(by[path]) for path, s in found.items()}

    def compressed(self, recipe: CompressionRecipe) -> Compression:
        graph, statistics, known = self.graph, self.statistics, self.known
        if recipe.equalization:
            graph, statistics = equalize(graph, statistics, recipe.equalization)
            known = {}  # those are of other weights
        result = compress_graph(
            graph,
            recipe,
            storage=self.storage,
            dtype=np.dtype(self.precision),
            float32=self.float32,
            statistics=statistics,
            known=known,
        )
        if not recipe.activations:
            return result
        ranges = input_ranges(result.graph, statistics, result.forms, recipe.activations)
        return replace(result, graph=quantize_inputs(result.graph, ranges, result.forms))

    def searched(self, request: Request) -> Compression:
        options = candidates(
            self.graph,
            self.seen.calibration,
            self.statistics,
            storage=self.storage,
            dtype=np.dtype(self.precision),
            known=self.known,
        )
        points = front(options)
        measured = self.agreement if self.seen.outputs.ndim == 2 else None
        if request.budget:
            chosen = self._within(points, request.budget)
        elif measured is None:
            raise ConfigError("agreement is of class scores: export logits, or give a budget")
        else:
            chosen = agreeing(points, request.min_agreement, measured)
        result = self.compressed(chosen.recipe)
        if not request.front:
            return result
        overhead = self._overhead(result) + _weight_bytes(result) - chosen.bytes
        return replace(result, front=make_front(points, chosen, overhead, measured))

    def agreement(self, point: Point) -> float:
        """The share of the calibration images that keep their class."""
        result = self.compressed(point.recipe)
        calibration = self.seen.calibration
        constants = in_mlx(calibration.graph, result, self.divisors)
        got = np.concatenate(calibration.outputs(constants))
        return float((decisions(got) == decisions(self.seen.outputs)).mean())

    def _within(self, points: list[Point], budget: float) -> Point:
        """What a package weighs beside its weights is known once it is made: so make it."""
        overhead = self._overhead(self.compressed(points[0].recipe))
        while True:
            point = within(points, budget, overhead)
            result = self.compressed(point.recipe)
            excess = self._overhead(result) + _weight_bytes(result) - budget
            if excess <= 0:
                return point
            overhead += excess

    def _overhead(self, result: Compression) -> float:
        return self.size_of(result) + _METADATA - _weight_bytes(result)


def _weight_bytes(result: Compression) -> float:
    return sum(form.stored_bits for form in result.forms.values()) / 8


def in_mlx(
    graph: Graph, result: Compression, divisors: Mapping[str, Divisors] | None = None
) -> dict[str, Array]:
    """The layers' compressed weights and biases in MLX's layout, to be evaluated there.

    ``graph`` is not rescaled, as ``result`` is by ``divisors``: each layer gets back the
    powers of two that were taken from it, which is exact.
    """
    constants: dict[str, Array] = {}
    for path, node in layers(graph):
        taken = (divisors or {}).get(path, Divisors())
        for name in node.inputs[1:]:
            laid = result.graph.constants.get(name)
            if laid is None:
                continue
            wanted = graph.constants[name].shape
            factor = taken.output / taken.input if name == path else taken.output
            value = np.asarray(laid, np.float32) * np.float32(factor)
            moved = np.moveaxis(value, 1, -1) if name == path and value.ndim > 2 else value
            if moved.size == np.prod(wanted):
                constants[name] = moved.reshape(wanted)
    return constants
