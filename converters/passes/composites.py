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

from ..graph import Array, Graph, Node, Shape
from ..trace import trace_function
from .broadcasts import drop_broadcasts
from .canonical import canonicalize
from .dead_code import remove_dead_code

ANY = 0.0123456789  # stands for "any scalar": becomes an argument of the composite


@dataclass(frozen=True)
class Composite:
    """``op(x, *args, *captured)`` stands for what ``fn(x)`` traces to, at x's own shape."""

    op: str
    fn: Callable[[mx.array], mx.array]
    args: Callable[[Shape], tuple[object, ...]] = lambda shape: ()
    rank: int = 0  # only for values of this many axes; 0: any

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


# The most specific first: a hard swish contains a relu.
COMPOSITES = (
    Composite("LayerNorm", lambda x: mx.fast.layer_norm(x, None, None, ANY), _last_axis),
    Composite("LayerNorm", _instance_norm, lambda shape: ((1, 2),), rank=4),
    Composite("LayerNorm", _group_norm, lambda shape: ((1,),), rank=3),
    Composite("Gelu", nn.gelu),
    Composite("GeluTanh", nn.gelu_approx),
    Composite("GeluSigmoid", nn.gelu_fast_approx),
    Composite("HardSwish", nn.hardswish),
    Composite("Silu", nn.silu),
    Composite("Relu6", nn.relu6),
    Composite("Relu", nn.relu),
    Composite("LeakyRelu", lambda x: nn.leaky_relu(x, ANY)),
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

    COMMUTATIVE = frozenset({"Add", "Multiply", "Maximum", "Minimum"})

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
        elif want in self.pattern_inputs:
            matched = True
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

    def _node(self, want: Node, have: Node | None) -> bool:
        if have is None or have.op != want.op or have.args != want.args:
            return False
        if [v.shape for v in have.outputs] != [v.shape for v in want.outputs]:
            return False
        orders = [have.inputs]
        if want.op in self.COMMUTATIVE:
            orders.append(have.inputs[::-1])
        for inputs in orders:
            saved = dict(self.names), list(self.nodes), list(self.scalars)
            if all(map(self._value, want.inputs, inputs)):
                if have not in self.nodes:
                    self.nodes.append(have)
                return True
            self.names, self.nodes, self.scalars = saved
        return False
