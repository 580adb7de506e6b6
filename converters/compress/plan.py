"""From what a user asks for to a graph with its compressed constants."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ondevice.errors import ConfigError

from ..graph import Graph
from ..interface import Interface
from .activations import input_ranges, quantize_inputs
from .apply import Compression, compress_graph
from .calibrate import calibrate, measure
from .recipe import CompressionRecipe, load_recipe


@dataclass(frozen=True)
class Request:
    """What ``export`` was asked for: a recipe, images to calibrate on, or limits to search in.

    ``budget`` is the package's size in bytes, ``min_agreement`` the share of calibration
    images on which the compressed model names the same class. ``account`` is given the result.
    """

    recipe: str | Path | CompressionRecipe = ""
    calibration: Iterable[Any] = ()
    budget: int = 0
    min_agreement: float = 0.0
    account: Callable[[Compression], None] = lambda _: None

    @property
    def wanted(self) -> bool:
        return bool(self.recipe or self.budget or self.min_agreement)


def compress(
    graph: Graph,
    interface: Interface,
    request: Request | None,
    *,
    target: str,
    precision: str,
    float32: Collection[str] = (),
) -> Compression:
    """The channels-first ``graph`` compressed as asked; untouched if nothing was.

    Raises ConfigError and ImageError.
    """
    if request is None or not request.wanted:
        return Compression(graph)
    recipe = load_recipe(request.recipe or "mixed", target)
    samples = list(request.calibration)
    if recipe.activations and not samples:
        raise ConfigError(f"recipe {recipe.name} needs calibration images: --calibrate FOLDER")
    statistics = measure(calibrate(interface, samples)) if samples else {}
    result = compress_graph(
        graph,
        recipe,
        target=target,
        dtype=np.dtype(precision),
        float32=float32,
        statistics=statistics,
    )
    if recipe.activations:
        result = _with_activations(result, statistics, recipe)
    request.account(result)
    return result


def _with_activations(result: Compression, statistics: Any, recipe: Any) -> Compression:
    ranges = input_ranges(result.graph, statistics, result.forms, recipe.activations)
    return replace(result, graph=quantize_inputs(result.graph, ranges, result.forms))
