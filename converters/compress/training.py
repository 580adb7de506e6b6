"""Rounding by a recipe while a model is trained, so that it learns what export will do."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from ondevice.errors import ConfigError

from ..function import Function, model_function
from ..graph.graph import Array, Graph
from ..graph.passes import channels_first, run_passes
from ..graph.trace import trace
from .activations import input_ranges
from .apply import LEAST, compress_graph
from .calibrate import LEAST as LEAST_IMAGES
from .forms import Form, Palette
from .methods import compress
from .plan import Observed, in_mlx
from .recipe import CompressionRecipe, Rule, load_recipe, parse_recipe
from .rounding import Weight, nearest_entries
from .storage import Level, Storage

logger = logging.getLogger("ondevice")

# Presets are what every package of today holds; what a recipe file asks for is up to export.
_STORAGE = Storage(Level.ACTIVATIONS)


class TrainedRounding:
    """A recipe as ``ondevice.nn.rounding.Rounding``: to the nearest code, as without samples.

    Channels are not equalized: training takes care of what they differ by.
    """

    def __init__(self, recipe: CompressionRecipe) -> None:
        self.recipe = replace(recipe, equalization="", trained=True)
        self._forms: dict[str, Form | None] = {}

    @property
    def name(self) -> str:
        """What the recipe is called."""
        return self.recipe.name

    @property
    def ranges(self) -> Mapping[str, tuple[float, int]]:
        """Scale and zero point of each layer's input, by its weight's path."""
        return self.recipe.ranges

    def prepare(self, model: nn.Module, images: Sequence[Array]) -> dict[str, Any]:
        """The recipe as JSON, with the ranges of activations on ``images`` if it has any.

        Raises ConfigError for patterns without a match, or too few images for ranges.
        """
        function = model_function(model, model.signature)
        graph = _laid_out(function)
        others = tuple(Rule(path, "none") for path in _changed_in(graph, function.model))
        recipe = replace(self.recipe, rules=(*others, *self.recipe.rules))
        compressed = compress_graph(graph, recipe, storage=Storage())
        if not self.recipe.activations:
            return recipe.to_dict()
        statistics = Observed(function, images).statistics
        found = input_ranges(graph, statistics, compressed.forms, self.recipe.activations)
        ranges = {
            node.inputs[1]: (found[node.inputs[0]].scale, found[node.inputs[0]].zero_point)
            for node in graph.nodes
            if len(node.inputs) > 1
            and node.inputs[0] in found
            and node.inputs[1] in compressed.forms
        }
        return replace(recipe, ranges=ranges).to_dict()

    def start(self, model: nn.Module, images: Sequence[Array]) -> Mapping[str, Array]:
        """Weights that second-order rounding finds on ``images``, and biases that make up for
        it: training goes on from the best that can be had without it.

        With eight-bit activations the nearest codes measure better: nothing is given then."""
        if len(images) < LEAST_IMAGES or self.recipe.activations:
            return {}
        function = model_function(model, model.signature)
        seen = Observed(function, images)
        statistics = seen.statistics
        plain = replace(self.recipe, trained=False, activations="")
        found = compress_graph(
            _laid_out(function), plain, storage=Storage(), statistics=statistics
        )
        values = in_mlx(seen.calibration.graph, found)
        rounded = {p.removesuffix("weight") for p in found.forms}
        return {
            path: np.asarray(value, np.float32)
            for path, value in values.items()
            if path.rpartition(".")[0] + "." in rounded
        }

    def begin(self, recipe: Mapping[str, Any]) -> None:
        """Round by what ``prepare`` gave. Raises ConfigError."""
        self.recipe = parse_recipe(dict(recipe), self.name)
        self._forms.clear()

    def weights(self, given: Mapping[str, Array], *, fresh: bool) -> Mapping[str, Array]:
        """Arrays in MLX's layout, rounded: all of two axes or more that are not too small."""
        found = {}
        for path, value in given.items():
            if (weight := _weight(path, value)) is None:
                continue
            form = self._forms[path] = self._form(weight, fresh=fresh)
            if form is not None:
                dense = form.dense().astype(np.float32)
                found[path] = np.moveaxis(dense, 1, -1) if value.ndim == 4 else dense
        return found

    def _form(self, weight: Weight, *, fresh: bool) -> Form | None:
        """Finding a palette takes as long as a step of training; looking up does not."""
        known = self._forms.get(weight.path)
        if fresh or not isinstance(known, Palette):
            rule = self.recipe.rule(weight.path)
            return compress(weight, rule.method, rule.options)
        tables = known.values().reshape(-1, known.table.shape[-1]).astype(np.float64)
        return replace(known, indices=nearest_entries(weight, tables))


def rounding(recipe: str | Path | CompressionRecipe) -> TrainedRounding:
    """What ``ondevice.train(..., rounding=...)`` takes. Raises ConfigError.

    ``recipe`` is a preset's name, a file, or a recipe as it is.
    """
    return TrainedRounding(load_recipe(recipe, _STORAGE))


def own_recipe(model: nn.Module, options: Mapping[str, Any]) -> dict[str, Any]:
    """The ``recipe`` that ``model`` was trained to be rounded by, if ``options`` of an export
    ask for no compression of another kind; "none" is no compression.

    Raises ConfigError if it cannot be read.
    """
    if options.get("recipe") == "none":
        return {"recipe": ""}
    own = getattr(model, "info", None) and model.info.recipe
    if not own or any(options.get(name) for name in ("recipe", "budget", "min_agreement")):
        return {}
    try:
        recipe = parse_recipe(own, "trained")
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{model.info.name}: its recipe cannot be read: {error}") from error
    logger.info("%s was trained to be rounded by %s: used", model.info.name, recipe.name)
    return {"recipe": recipe}


def shared_recipe(
    models: Mapping[str, nn.Module], options: Mapping[str, Any]
) -> dict[str, Any]:
    """The ``options`` with the recipe of all models. Raises ConfigError if each has its own."""
    found = [{**options, **own_recipe(model, options)} for model in models.values()]
    if any(each != found[0] for each in found):
        raise ConfigError(f"{', '.join(models)} were trained for recipes that differ: give one")
    return found[0] if found else dict(options)


def _laid_out(function: Function) -> Graph:
    """What ``function`` computes, channels-first, in float32."""
    return channels_first(run_passes(trace(function.model, *function.inputs, fn=function.fn)))


def _changed_in(graph: Graph, model: nn.Module) -> list[str]:
    """The weights that a package has in other values than the fused ``model``: the first layer,
    into which the scale of the pixels goes. What training does not see, it does not round."""
    found = []
    parameters: dict[str, Any] = dict(tree_flatten(model.parameters()))
    for path, value in parameters.items():
        weight, known = _weight(path, np.array(value)), graph.constants.get(path)
        if weight is not None and known is not None and known.size == weight.value.size:
            exact = weight.value.reshape(known.shape)
            found += [] if np.allclose(known, exact, rtol=1e-5, atol=0) else [path]
    return found


def _weight(path: str, value: Array) -> Weight | None:
    """A parameter of a fused model as export sees it, if it is one that is compressed."""
    long = sum(n > 1 for n in value.shape)
    if long < 2 or value.size < LEAST or not np.issubdtype(value.dtype, np.floating):
        return None
    laid = np.moveaxis(value, -1, 1) if value.ndim == 4 else value
    axis = 0 if value.ndim in (2, 4) else next(i for i, n in enumerate(value.shape) if n > 1)
    return Weight(path, laid, axis=axis)
