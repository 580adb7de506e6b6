"""A recipe applied to a graph: forms for its constants, and an account of every one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from ..graph.graph import Array, Graph, Node
from ..graph.ops import op
from .forms import Form, bits_per_weight, snr_db
from .methods import compress
from .recipe import CompressionRecipe
from .rounding import Statistics, Weight
from .storage import Storage

_RULES = 16  # as many are written into a package
LEAST = 256  # elements: below, a table or a scale costs more than it saves
_EXACT = ("palettize", {"bits": 1})  # for a mask, which no method may prune or blur


@dataclass(frozen=True)
class Row:
    """What became of one constant."""

    path: str
    shape: tuple[int, ...]
    format: str
    bits: float  # a weight, tables and scales included
    snr_db: float | None = None
    note: str = ""

    @property
    def size(self) -> int:
        """The number of elements."""
        return int(np.prod(self.shape))


@dataclass(frozen=True)
class Compression:
    """Forms by constant, the graph with what they stand for, and a row a weight."""

    graph: Graph
    forms: Mapping[str, Form] = field(default_factory=dict)
    rows: tuple[Row, ...] = ()
    recipe: CompressionRecipe | None = None
    front: Any = None  # a ``Front``, if formats were searched

    def summary(self) -> dict[str, Any]:
        """Counts, and bits a weight, for reports."""
        elements = sum(r.size for r in self.rows) or 1
        return {
            "weights": len(self.rows),
            "compressed": len(self.forms),
            "bits_per_weight": round(sum(r.bits * r.size for r in self.rows) / elements, 3),
        }

    @property
    def metadata(self) -> dict[str, str]:
        """What a package says of it."""
        if self.recipe is None:
            return {}
        said: dict[str, Any] = {k: v for k, v in self.recipe.to_dict().items() if k != "ranges"}
        if len(said["rules"]) > _RULES:  # found by a search: a line a format says enough
            said["rules"] = dict(Counter(row.format for row in self.rows))
        return {"ondevice.recipe": json.dumps(said | self.summary())}


def weights(
    graph: Graph,
    dtype: Any = np.float16,
    float32: Collection[str] = (),
    statistics: Mapping[str, Statistics] | None = None,
) -> Iterator[Weight]:
    """Every constant of two axes or more that is read as a number, channels-first.

    Biases, scales and shifts per channel are vectors and stay float. ``float32`` names the
    nodes (by their first output) that compute in that type whatever the others do.
    """
    biased = {node.inputs[1] for node in _biased(graph)}
    seen: set[str] = set()
    for node in graph.nodes:
        for position, name in enumerate(node.inputs):
            value = graph.constants.get(name)
            if name in seen or value is None or not _is_weight(node, value):
                continue
            seen.add(name)
            axis = _outputs_axis(node, position, value)
            kind = np.float32 if node.outputs[0].name in float32 else dtype
            given = (statistics or {}).get(name)
            given = given.centred() if given and name in biased else given
            yield Weight(name, value.astype(np.float32), kind, axis, given)


def _outputs_axis(node: Node, position: int, value: Array) -> int:
    """Where a layer's weight has its outputs, a table its rows: each gets a scale."""
    if op(node.op).kind == "layer" and position == 1:
        return 1 if node.op == "ConvTranspose" else 0
    return next(axis for axis, n in enumerate(value.shape) if n > 1)


def _biased(graph: Graph) -> Iterator[Node]:
    """Layers with a bias of their own."""
    for node in graph.nodes:
        own_bias = len(node.inputs) > 2 and graph.uses[node.inputs[2]] == 1
        if op(node.op).kind == "layer" and own_bias:
            yield node


def _is_weight(node: Node, value: Array) -> bool:
    long = sum(n > 1 for n in value.shape)
    floating = np.issubdtype(value.dtype, np.floating)
    return floating and long >= 2 and not op(node.op).literal


def compress_graph(
    graph: Graph,
    recipe: CompressionRecipe,
    *,
    storage: Storage,
    dtype: Any = np.float16,
    float32: Collection[str] = (),
    statistics: Mapping[str, Statistics] | None = None,
    known: dict[Any, Form | None] | None = None,
) -> Compression:
    """Forms for the constants of a channels-first graph. Raises ConfigError.

    With ``statistics`` of the layers' inputs, rounding is second-order and the biases take
    up the mean of what rounding changes. ``known`` keeps forms between calls.
    """
    found = list(weights(graph, dtype, float32, statistics))
    recipe.check([w.path for w in found], storage)
    constants, forms, rows = dict(graph.constants), {}, []
    for weight in found:
        form, row = _one(weight, recipe, {} if known is None else known)
        rows.append(row)
        if form is not None:
            forms[weight.path] = form
            constants[weight.path] = form.dense()
    if statistics:
        correct_biases(graph, constants, statistics)
    return Compression(replace(graph, constants=constants), forms, tuple(rows), recipe)


def _one(
    weight: Weight, recipe: CompressionRecipe, known: dict[Any, Form | None]
) -> tuple[Form | None, Row]:
    width = 8.0 * np.dtype(weight.dtype).itemsize
    plain = Row(weight.path, weight.value.shape, f"float{width:g}", width)
    if weight.value.size < LEAST:
        return None, replace(plain, note=f"fewer than {LEAST} elements")
    rule = recipe.rule(weight.path)
    method, options = rule.method, rule.options
    if method != "none" and weight.is_mask:
        method, options = _EXACT
    form = remembered(known, weight, method, options)
    if form is None:
        return None, replace(plain, note=f"rule {rule.pattern}")
    row = Row(
        weight.path,
        weight.value.shape,
        form.label,
        round(bits_per_weight(form), 3),
        round(snr_db(weight.value, form.dense()), 2),
    )
    return form, row


def remembered(
    known: dict[Any, Form | None], weight: Weight, method: str, options: Mapping[str, Any]
) -> Form | None:
    """The weight's form, worked out once."""
    key = (weight.path, method, *sorted(options.items()))
    if key not in known:
        known[key] = compress(weight, method, options)
    return known[key]


def correct_biases(
    graph: Graph, constants: dict[str, Array], statistics: Mapping[str, Statistics]
) -> None:
    """Let each bias make up for the mean of what rounding changed in its layer's output.

    Nagel et al., "Data-free quantization through weight equalization and bias correction",
    2019, with measured means.
    """
    for node in _biased(graph):
        path, bias = node.inputs[1:]
        if path in statistics and bias in constants and path in constants:
            lost = graph.constants[path].astype(np.float64) - constants[path]
            means = statistics[path].means
            rows = np.repeat(means, lost.shape[0] // len(means), axis=0)
            mean = (lost.reshape(lost.shape[0], -1) * rows).sum(axis=1)
            constants[bias] = (graph.constants[bias] + mean).astype(np.float32)
