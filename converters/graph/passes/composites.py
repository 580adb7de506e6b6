"""Raise groups of primitives back to the operation they came from.

MLX decomposes ``nn.gelu`` or ``mx.fast.layer_norm`` while tracing. Core ML has one op for
each, so we look for the decomposition. The pattern is not written down: it is traced from
the MLX function itself, and so follows MLX when MLX changes.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import mlx.core as mx
import mlx.nn as nn

from ..graph import Array, Graph, Node, Shape, Value
from ..ops import op
from ..record import trace_function
from .broadcasts import drop_broadcasts
from .canonical import canonicalize
from .dead_code import remove_dead_code

ANY = 0.0123456789  # stands for "any scalar": becomes an argument of the composite


@dataclass(frozen=True)
class Composite:
    """``op(x, *args, *captured)`` stands for what ``fn(x)`` traces to, at x's own shape.

    ``holds`` says for which captured scalar: for others the operation is another one.
    """

    op: str
    fn: Callable[[mx.array], mx.array]
    args: Callable[[Shape], tuple[object, ...]] = lambda shape: ()
    rank: int = 0  # only for values of this many axes; 0: any
    holds: Callable[[float], bool] = lambda scalar: True

    @cache  # noqa: B019 - the few composites live as long as the module
    def pattern(self, shape: Shape) -> Graph:
        traced = trace_function(self.fn, mx.zeros(shape))
        return remove_dead_code(canonicalize(drop_broadcasts(traced)))


def _last_axis(shape: Shape) -> tuple[object, ...]:
    return ((len(shape) - 1,),)


def _instance_norm(x: mx.array) -> mx.array:
    return nn.InstanceNorm(x.shape[-1], eps=ANY)(x)


def _group_norm(x: mx.array) -> mx.array:
    """The heart of nn.GroupNorm, whose groups lie on the last axis."""
    mean = mx.mean(x, axis=1, keepdims=True)
    return (x - mean) * mx.rsqrt(mx.var(x, axis=1, keepdims=True) + ANY)


def _layer_norm(x: mx.array) -> mx.array:
    return mx.fast.layer_norm(x, None, None, ANY)


def _is_eps(scalar: float) -> bool:
    """Core ML has no norm that divides by zero, or by the root of a negative number."""
    return scalar > 0


def _is_slope(scalar: float) -> bool:
    """``max(slope * x, x)`` is x for a positive x only up to a slope of one."""
    return scalar <= 1


# The most specific first: a hard swish contains a relu.
COMPOSITES = (
    Composite("LayerNorm", _layer_norm, _last_axis, holds=_is_eps),
    Composite("LayerNorm", _instance_norm, lambda shape: ((1, 2),), rank=4, holds=_is_eps),
    Composite("LayerNorm", _group_norm, lambda shape: ((1,),), rank=3, holds=_is_eps),
    Composite("Gelu", nn.gelu),
    Composite("GeluTanh", nn.gelu_approx),
    Composite("GeluSigmoid", nn.gelu_fast_approx),
    Composite("HardSwish", nn.hardswish),
    Composite("Silu", nn.silu),
    Composite("Relu6", nn.relu6),
    Composite("Relu", nn.relu),
    Composite("LeakyRelu", lambda x: nn.leaky_relu(x, ANY), holds=_is_slope),
)


def raise_composites(graph: Graph) -> Graph:
    """Replace every instance of every composite, the most specific first."""
    for composite in COMPOSITES:
        graph = _raise(graph, composite)
    return graph


def _raise(graph: Graph, composite: Composite) -> Graph:
    replaced: dict[str, Node] = {}
    inside: set[str] = set()
    for node in reversed(graph.nodes):
        shape = node.outputs[0].shape
        wrong_rank = composite.rank and composite.rank != len(shape)
        if node.outputs[0].name in inside or not shape or wrong_rank:
            continue
        match = _Match(graph, composite.pattern(shape))
        if match.pattern.nodes[-1].op != node.op or not match.finds(node):
            continue
        if not all(map(composite.holds, match.scalars)):
            continue
        (x,) = match.pattern.inputs
        args = (*composite.args(shape), *match.scalars)
        replaced[node.output.name] = Node(
            composite.op, (match.names[x.name],), node.outputs, args
        )
        inside.update(n.output.name for n in match.nodes)
    return graph.with_nodes(
        replaced.get(n.outputs[0].name, n)
        for n in graph.nodes
        if n.outputs[0].name in replaced or n.outputs[0].name not in inside
    )


class _Match:
    """Try to read ``graph`` as an instance of ``pattern``, from the output back."""

    def __init__(self, graph: Graph, pattern: Graph) -> None:
        self.graph, self.pattern = graph, pattern
        self.pattern_inputs = {v.name for v in pattern.inputs}
        self.names: dict[str, str] = {}
        self.nodes: list[Node] = []
        self.scalars: list[float] = []

    def finds(self, node: Node) -> bool:
        """Whether ``node`` ends an instance whose inner values nothing else reads."""
        if not self._value(self.pattern.outputs[0], node.output.name):
            return False
        own = Counter(i for n in self.nodes for i in n.inputs)
        inner = (n.output.name for n in self.nodes if n is not node)
        return all(self.graph.uses[name] == own[name] for name in inner)

    def _value(self, want: str, have: str) -> bool:
        if want in self.names:
            return self.names[want] == have
        if want in self.pattern.constants:
            matched = self._constant(self.pattern.constants[want], have)
        elif want in self.pattern_inputs:  # x itself, not what is broadcast to its shape
            matched = self._alike(self.pattern.values[want], self.graph.values[have])
        else:
            matched = self._node(self.pattern.producer[want], self.graph.producer.get(have))
        if matched:
            self.names[want] = have
        return matched

    def _constant(self, want: Array, have: str) -> bool:
        value = self.graph.constants.get(have)
        if value is None or value.size != 1 or want.size != 1:
            return False
        if math.isclose(want.item(), ANY, rel_tol=1e-6):
            self.scalars.append(float(value.item()))
            return True
        return math.isclose(want.item(), value.item(), rel_tol=1e-5)

    def _alike(self, want: Value, have: Value) -> bool:
        return (want.shape, want.dtype) == (have.shape, have.dtype)

    def _node(self, want: Node, have: Node | None) -> bool:
        if have is None or have.op != want.op or have.args != want.args:
            return False
        if not all(map(self._alike, want.outputs, have.outputs)):
            return False
        orders = [have.inputs]
        if op(want.op).commutes:
            orders.append(have.inputs[::-1])
        for inputs in orders:
            saved = dict(self.names), list(self.nodes), list(self.scalars)
            if all(map(self._value, want.inputs, inputs)):
                if have not in self.nodes:
                    self.nodes.append(have)
                return True
            self.names, self.nodes, self.scalars = saved
        return False
