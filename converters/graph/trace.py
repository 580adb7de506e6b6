"""Record what an MLX module computes, as a graph whose constants are its parameters."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
from mlx.utils import tree_flatten

from ondevice.errors import ConfigError, OnDeviceError, UnsupportedOpError

from .graph import COMPUTED, Graph
from .passes.constants import fold_constants
from .passes.dead_code import remove_dead_code
from .passes.duplicates import merge_constants, merge_duplicates
from .places import marked, places_of, where_it_failed
from .quantized import dequantized
from .record import record, to_graph
from .results import arrays_in, left_out_of, names_of
from .untouched import float32, left_as_it_was, numbers_in, without_checkpoints

Fn = Callable[..., Any]


def trace(model: nn.Module, *inputs: mx.array, fn: Callable[..., Any] | None = None) -> Graph:
    """Record the primitives that ``model(*inputs)`` runs, in float32 and in eval mode.

    ``fn(*inputs)``, if given, is recorded instead: anything that calls ``model``. Parameters
    keep their paths as names; their values are known to the code that is traced, those of the
    inputs and of all that depends on them are not. Compiled functions are recorded as what
    they are made of. Tracing on the CPU stream gives the same graph on every machine: fast
    kernels such as ``mx.fast.layer_norm`` are recorded as the primitives they stand for. The
    model is left as it was. Outputs that have names (keys of a dict, fields of a dataclass)
    give them to ``Graph.output_names``.

    Raises ConfigError for a model that reads a value which depends on its input, and for one
    that computes something else when it is called again (a counter, random numbers): a
    package cannot.
    """
    given = [float32(x) for x in inputs]
    traced, said = _Traced(model, fn or model, given), logging.getLogger("converters").warning
    name = type(model).__name__
    if any(module.training for _, module in model.named_modules()):
        said("%s is in training mode; it is exported as model.eval() makes it", name)
    with left_as_it_was(model), dequantized(model) as quantized:
        model.eval()
        graph = replace(_through_checkpoints(traced), quantized=quantized)
    if traced.counting:
        said(
            "%s changes with every call of %s: what that changes later is left out",
            ", ".join(traced.counting),
            name,
        )
    for output, kind in traced.left_out.items():
        said("%s, of type %s, is no array: it is no output of the package", output, kind)
    return graph


def _through_checkpoints(traced: _Traced) -> Graph:
    """The graph, with functions of ``mx.checkpoint`` as what they are made of."""
    try:
        return traced.graph()
    except ValueError as error:
        if "CustomTransforms" not in str(error) or not traced.is_same_without_checkpoints():
            raise _handed_over(error) from error
    with without_checkpoints():
        return traced.graph()


@dataclass
class _Traced:
    """A call of a model that may be made and recorded any number of times."""

    model: nn.Module
    fn: Fn
    inputs: list[mx.array]
    left_out: dict[str, str] = field(default_factory=dict)
    counting: list[str] = field(default_factory=list)

    def call(self, *xs: mx.array) -> dict[Any, mx.array]:
        """The arrays of a result. Raises ConfigError for whatever goes wrong in the model.

        ``xs`` are lent: a model that assigns to elements of its input changes no other call's.
        """
        try:
            result = self.fn(*map(float32, xs))
            self.left_out = left_out_of(result)
            return arrays_in(result)
        except OnDeviceError:
            raise
        except Exception as error:
            raise translated(self.model, error) from error

    def graph(self) -> Graph:
        names: list[tuple[str, ...]] = []

        def once(*xs: mx.array) -> list[mx.array]:
            found = self.call(*xs)
            names.append(names_of(found))
            return list(found.values())

        def twice(*xs: mx.array) -> list[mx.array]:
            first, before = once(*xs), numbers_in(self.model)
            second, after = once(*xs), numbers_in(self.model)
            self.counting = [v[0] for key, v in before.items() if after.get(key, v) != v]
            return first + second

        with left_as_it_was(self.model):
            named = _named_parameters(self.model)
            graph = to_graph(record(twice, self.inputs), named)
        graph = _first_call(replace(graph, output_names=names[0]), is_same=names[0] == names[1])
        with left_as_it_was(self.model), marked(self.model) as marks:
            places = places_of(graph, record(once, self.inputs), named, marks)
        return replace(graph, places=places)

    def is_same_without_checkpoints(self) -> bool:
        """Whether ``mx.checkpoint`` is all that wraps a function here: ``mx.vmap`` is not."""
        noisy = [
            x + mx.random.uniform(shape=x.shape, key=mx.random.key(0)) for x in self.inputs
        ]
        is_float = [mx.issubdtype(x.dtype, mx.floating) for x in self.inputs]
        given = [n if f else x for n, f, x in zip(noisy, is_float, self.inputs, strict=True)]
        with left_as_it_was(self.model):
            wanted = list(self.call(*given).values())
            mx.eval(wanted)
        with left_as_it_was(self.model), without_checkpoints():
            try:
                found = list(self.call(*given).values())
            except OnDeviceError:
                return False
            pairs = zip(found, wanted, strict=True)
            return all(bool(mx.array_equal(a, b, equal_nan=True)) for a, b in pairs)


def _handed_over(error: ValueError) -> Exception:
    """What MLX cannot hand over, in our words."""
    found = re.search(r"get state for primitive (\w+)", str(error))
    if not found:
        return error
    return UnsupportedOpError(
        f"cannot export {found[1]}: MLX does not hand it over; compute it outside of the "
        "module, or with other operations"
    )


def translated(model: nn.Module, error: Exception) -> ConfigError:
    """What went wrong while a module ran, in one line with the place."""
    where, said = where_it_failed(model, error), " ".join(str(error).split())
    if "Attempting to eval" in said:
        return ConfigError(
            f"{where} reads a value that depends on the input (item, tolist, float, bool, "
            "numpy, mx.eval): values are not known while tracing, only shapes and parameters "
            "are; compute it with mx, or with mx.where in place of if"
        )
    return ConfigError(
        f"the module cannot be called: {type(error).__name__} in {where}: {said}"
    )


def _named_parameters(model: nn.Module) -> Mapping[str, mx.array]:
    """Every parameter by its path, as far as a path can be a name."""
    found: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    mx.eval(found)
    return {k: v for k, v in found.items() if k and not k.startswith(COMPUTED)}


def _first_call(graph: Graph, is_same: bool) -> Graph:
    """The graph of one call, of two in a row that have to give the same values."""
    merged = merge_duplicates(graph)
    if is_same and not _is_twice(merged):  # perhaps of constants that it makes each time
        folded = merge_duplicates(merge_constants(fold_constants(merged)))
        is_same = _is_twice(folded)
    if not is_same:
        raise ConfigError(
            "the module computes something else when it is called a second time; a package "
            "cannot: take out what counts, caches its inputs or draws random numbers"
        )
    outputs = merged.outputs[: len(merged.outputs) // 2]
    return remove_dead_code(replace(merged, outputs=outputs)).check()


def _is_twice(graph: Graph) -> bool:
    count = len(graph.outputs) // 2
    return graph.outputs[:count] == graph.outputs[count:]
