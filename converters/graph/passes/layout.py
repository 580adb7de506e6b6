"""Keep image tensors physically channels-first, from end to end.

MLX is channels-last, Core ML's image operations and the Neural Engine are channels-first.
Instead of transposing around each convolution, this pass tracks for every value the order
in which its axes lie in memory, and rewrites each node for that order: a logical transpose
costs nothing, a constant is laid out anew (under its own name), an axis argument is mapped.
Only a reshape that merges axes which do not lie together, or an operation nobody taught the
pass, brings a value back to its logical order, with a Transpose that shows in the graph.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..graph import Array, Graph, Node, Shape, Value, free_name
from ..ops import op
from .joined_moves import join_moves
from .lookahead import before_linear, meets
from .orders import (
    CUT,
    MAX_RANK as MAX_RANK,
    NCHW as NCHW,
    NCL as NCL,
    TOKENS as TOKENS,
    Order as Order,
    identity as identity,
    longer,
    permutation,
    physical as physical,
    reshaped,
    with_nones,
    without,
)
from .shared_moves import share_moves

REPLACED = frozenset({"Convolution"})  # operations that no physical graph has


def channels_first(
    graph: Graph,
    inputs: Mapping[str, Order] | None = None,
    outputs: Mapping[str, Order] | None = None,
) -> Graph:
    """Rewrite ``graph`` so that every value has its physical shape.

    ``inputs`` and ``outputs`` name the values that cross the border in another order than
    MLX's own. ``Convolution`` becomes ``Conv`` or ``ConvTranspose``, which are channels-first.
    """
    laid = _Layout(graph, dict(inputs or {})).run(dict(outputs or {}))
    return join_moves(share_moves(laid))


class _Layout:
    def __init__(self, graph: Graph, inputs: dict[str, Order]) -> None:
        self.graph = graph
        self.inputs = tuple(
            replace(v, shape=physical(v.shape, inputs.get(v.name, identity(len(v.shape)))))
            for v in graph.inputs
        )
        self.order: dict[str, Order] = {
            v.name: inputs.get(v.name, identity(len(v.shape))) for v in graph.inputs
        }
        self.names: dict[str, str] = {v.name: v.name for v in graph.inputs}
        self.constants: dict[str, Array] = {}
        self.laid: dict[tuple[str, Shape, Order], str] = {}
        self.nodes: list[Node] = []
        self.has_attention = any(n.op == "Matmul" for n in graph.nodes)
        self.meets_linear = before_linear(graph)

    def run(self, outputs: dict[str, Order]) -> Graph:
        for node in self.graph.nodes:
            getattr(self, op(node.op).layout)(node)
        final = tuple(
            self.at(name, outputs.get(name, identity(len(self.graph.shape(name)))))
            for name in self.graph.outputs
        )
        return replace(
            self.graph,
            inputs=self.inputs,
            outputs=final,
            constants=self.constants,
            nodes=tuple(self.nodes),
        )

    # -- values ---------------------------------------------------------------------------

    def shape(self, name: str) -> Shape:
        return self.graph.shape(name)

    def is_constant(self, name: str) -> bool:
        return name in self.graph.constants

    def emit(
        self, node: Node, op: str, inputs: Sequence[str], order: Order, *args: object
    ) -> None:
        """Append ``op`` as the maker of the node's only output, lying in ``order``."""
        out = node.output
        self.nodes.append(
            Node(op, tuple(inputs), (replace(out, shape=physical(out.shape, order)),), args)
        )
        self.order[out.name], self.names[out.name] = order, out.name

    def at(self, name: str, order: Order, rank: int | None = None) -> str:
        """The name under which a value lies in ``order``, moved there if it does not yet.

        A constant of fewer than ``rank`` axes is first widened on the left, as in NumPy.
        """
        if self.is_constant(name):
            return self._constant_at(name, order, rank)
        have = self.order[name]
        return self.names[name] if have == order else self._moved(name, have, order)

    def _constant_at(self, name: str, order: Order, rank: int | None) -> str:
        value = self.graph.constants[name]
        shape = (1,) * ((rank or value.ndim) - value.ndim) + value.shape
        key = (name, shape, order)
        if key not in self.laid:
            axes = [axis for axis in order if axis is not None]
            absent = [axis for axis in range(len(shape)) if axis not in axes]
            array = (
                value.reshape(shape).transpose(*absent, *axes).reshape(physical(shape, order))
            )
            self.laid[key] = self._store(name, np.ascontiguousarray(array))
        return self.laid[key]

    def _store(self, name: str, array: Array) -> str:
        """Keep the constant's own name for its first layout."""
        stored = free_name(name, self.constants)
        self.constants[stored] = array
        return stored

    def _moved(self, name: str, have: Order, want: Order) -> str:
        key = (name, self.shape(name), want)
        if key in self.laid:
            return self.laid[key]
        shape = self.shape(name)
        before, after = longer(have, shape), longer(want, shape)
        source, kept = self.names[name], have
        if before != after:
            kept = tuple(a for a in want if a in have) + tuple(a for a in have if a not in want)
            kept = with_nones(kept, have)
            axes = permutation(have, kept)
            source = self._step("Transpose", name, source, physical(shape, kept), axes)
        if physical(shape, kept) != physical(shape, want):
            source = self._step("Reshape", name, source, physical(shape, want), None)
        self.laid[key] = source
        return source

    def _step(
        self, op: str, name: str, source: str, shape: Shape, axes: tuple[int, ...] | None
    ) -> str:
        made = f"{name}_{op.lower()}_{len(self.nodes)}"
        value = Value(made, shape, self.graph.values[name].dtype)
        self.nodes.append(Node(op, (source,), (value,), (axes or shape,)))
        return made

    def full(self, name: str, axes: Sequence[int]) -> Order:
        """The value's order if ``axes`` all exist in it, its logical order otherwise."""
        rank = len(self.shape(name))
        order = self.order.get(name, identity(rank))
        return order if all(axis in order for axis in axes) else identity(rank)

    # -- rules: the op table names one for each operation ---------------------------------

    def logical(self, node: Node) -> None:
        """Anything unknown is done in MLX's own order."""
        inputs = tuple(self.at(i, identity(len(self.shape(i)))) for i in node.inputs)
        self.nodes.append(replace(node, inputs=inputs))
        for out in node.outputs:
            self.order[out.name], self.names[out.name] = identity(len(out.shape)), out.name

    def unary(self, node: Node) -> None:
        (x,) = node.inputs
        order = self.order.get(x, identity(len(self.shape(x))))
        self.emit(node, node.op, [self.at(x, order)], order, *node.args)

    def elementwise(self, node: Node) -> None:
        rank = len(node.output.shape)
        order = self._common(node, rank)
        inputs = [self._operand(name, order, rank) for name in node.inputs]
        self.emit(node, node.op, inputs, order, *node.args)

    def _common(self, node: Node, rank: int) -> Order:
        """The order of the largest operand; of two equal ones, the one that is not logical."""
        moving = [
            i for i in node.inputs if not self.is_constant(i) and len(self.shape(i)) == rank
        ]
        if not moving:
            return identity(rank)
        plain = (identity(rank), CUT)
        best = max(moving, key=lambda i: (math.prod(self.shape(i)), self.order[i] not in plain))
        return self.order[best]

    def _operand(self, name: str, order: Order, rank: int) -> str:
        shape = self.shape(name)
        if self.is_constant(name):
            return self._constant_at(name, (), 0) if shape == () else self.at(name, order, rank)
        if len(shape) == rank or order == identity(rank):
            return self.at(name, order if len(shape) == rank else identity(len(shape)))
        plain = self.at(name, identity(len(shape)))
        wide = physical((1,) * (rank - len(shape)) + shape, order)
        kept = [axis for axis in order if axis is not None and axis >= rank - len(shape)]
        if kept != sorted(kept):
            axes = tuple(axis - (rank - len(shape)) for axis in kept)
            plain = self._step("Transpose", name, plain, tuple(shape[a] for a in axes), axes)
        return self._step("Reshape", name, plain, wide, None)

    def affine(self, node: Node) -> None:
        x, *vectors = node.inputs
        rank = len(self.shape(x))
        order = self.order[x]
        inputs = [self.at(x, order), *(self.at(v, order, rank) for v in vectors)]
        self.emit(node, node.op, inputs, order)

    def transpose(self, node: Node) -> None:
        (x,), (axes,) = node.inputs, node.args
        order = self.order[x]
        self.order[node.output.name] = tuple(
            None if axis is None else axes.index(axis) for axis in order
        )
        self.names[node.output.name] = self.names[x]

    def reshape(self, node: Node) -> None:
        (x,) = node.inputs
        before, after = self.shape(x), node.output.shape
        order = reshaped(self.order[x], before, after)
        if (
            order is None
            and len(after) == 4
            and meets(self.graph, node.output.name, self.order, NCHW)
        ):
            plain = self._step("Reshape", x, self.at(x, identity(len(before))), after, None)
            self.emit(node, "Transpose", [plain], NCHW, NCHW)
            return
        if order is None:
            x_at, order = self.at(x, identity(len(before))), identity(len(after))
        else:
            x_at = self.names[x]
        if order == NCL and node.output.name in self.meets_linear:
            order = TOKENS
        if len(order) > MAX_RANK:  # axes of length one need not exist
            order = tuple(a for a in order if a is not None and after[a] != 1)
        have = self.order[x] if x_at == self.names[x] else identity(len(before))
        if physical(before, have) == physical(after, order):
            self.order[node.output.name], self.names[node.output.name] = order, x_at
        else:
            self.emit(node, "Reshape", [x_at], order, physical(after, order))

    def split(self, node: Node) -> None:
        (x,), (indices, axis) = node.inputs, node.args
        order = self.full(x, [axis])
        outputs = tuple(replace(v, shape=physical(v.shape, order)) for v in node.outputs)
        args = (indices, order.index(axis))
        self.nodes.append(Node(node.op, (self.at(x, order),), outputs, args))
        for out in node.outputs:
            self.order[out.name], self.names[out.name] = order, out.name

    def concatenate(self, node: Node) -> None:
        (axis,) = node.args
        moving = [i for i in node.inputs if not self.is_constant(i)]
        best = max(moving, key=lambda i: math.prod(self.shape(i)))
        order = self.full(best, [axis])
        inputs = [self.at(i, order) for i in node.inputs]
        self.emit(node, node.op, inputs, order, order.index(axis))

    def take(self, node: Node) -> None:
        (x, index), (axis,) = node.inputs, node.args
        order = self.full(x, [axis])
        inputs = [self.at(x, order), self.at(index, identity(1))]
        self.emit(node, node.op, inputs, order, order.index(axis))

    def slice(self, node: Node) -> None:
        (x,), (start, stop, step) = node.inputs, node.args
        order = self.full(x, range(len(start)))
        ranges = (
            tuple(fill if a is None else values[a] for a in order)
            for values, fill in ((start, 0), (stop, 1), (step, 1))
        )
        self.emit(node, node.op, [self.at(x, order)], order, *ranges)

    def pad(self, node: Node) -> None:
        (x, value), (axes, low, high) = node.inputs, node.args
        order = self.full(x, axes)
        at = tuple(order.index(axis) for axis in axes)
        inputs = [self.at(x, order), self.at(value, ())]
        self.emit(node, node.op, inputs, order, at, low, high)

    def softmax(self, node: Node) -> None:
        (x,) = node.inputs
        axis = len(self.shape(x)) - 1
        order = self.full(x, [axis])
        self.emit(node, node.op, [self.at(x, order)], order, order.index(axis))

    def reduce(self, node: Node) -> None:
        (x,), (kind, axes, keep) = node.inputs, node.args
        order = self.full(x, axes)
        at = tuple(sorted(order.index(axis) for axis in axes))
        after = order if keep else without(order, axes)
        self.emit(node, node.op, [self.at(x, order)], after, kind, at, keep)

    def arg_reduce(self, node: Node) -> None:
        (x,), (kind, axis) = node.inputs, node.args
        order = self.full(x, [axis])
        keeps = len(node.output.shape) == len(self.shape(x))
        after = order if keeps else without(order, [axis])
        self.emit(node, node.op, [self.at(x, order)], after, kind, order.index(axis))

    def layer_norm(self, node: Node) -> None:
        (x, *affine), (axes, eps) = node.inputs, node.args
        order = TOKENS if self._is_stream(x, axes) else self.full(x, axes)
        at = tuple(sorted(order.index(axis) for axis in axes))
        inputs = [self.at(x, order), *(self.at(v, identity(1)) for v in affine)]
        self.emit(node, node.op, inputs, order, at, eps)

    def _is_stream(self, x: str, axes: Sequence[int]) -> bool:
        """Whether ``x`` is a transformer's (B, N, C) stream: one move saves four a block."""
        turned = self.order.get(x) in (identity(3), CUT)
        return turned and tuple(axes) == (2,) and self.has_attention

    def image(self, node: Node) -> None:
        """Pools and the like: arguments are per spatial axis, the order is channels-first."""
        self.emit(node, node.op, [self.at(node.inputs[0], NCHW)], NCHW, *node.args)

    def resample(self, node: Node) -> None:
        image, grid = node.inputs
        inputs = [self.at(image, NCHW), self.at(grid, identity(4))]
        self.emit(node, node.op, inputs, NCHW, *node.args)

    def convolution(self, node: Node) -> None:
        x, weight, *bias = node.inputs
        stride, low, high, dilation, input_dilation, groups, flip = node.args
        rank = len(self.shape(x))
        order: Order = (0, rank - 1, *range(1, rank - 1))
        if set(input_dilation) == {1} and not flip:
            inputs = [self.at(x, order), self.at(weight, order)]
            args: tuple[object, ...] = (stride, low, high, dilation, groups)
            op = "Conv"
        else:
            kernel = self.shape(weight)[1:-1]
            reach = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
            crop = tuple(
                tuple(r - p for r, p in zip(reach, pad, strict=True)) for pad in (low, high)
            )
            inputs = [self.at(x, order), self._transposed(weight, groups, flip)]
            args, op = (input_dilation, *crop, dilation, groups), "ConvTranspose"
        inputs += [self.at(b, identity(1)) for b in bias]
        self.emit(node, op, inputs, order, *args)

    def _transposed(self, name: str, groups: int, flip: bool) -> str:
        """MLX's (out, H, W, in/groups) kernel as Core ML's (in, out/groups, H, W)."""
        w = self.graph.constants[name]
        w = w if flip else np.flip(w, tuple(range(1, w.ndim - 1)))
        w = np.moveaxis(w.reshape(groups, w.shape[0] // groups, *w.shape[1:]), -1, 1)
        return self._store(name, np.ascontiguousarray(w.reshape(-1, *w.shape[2:])))

    def linear(self, node: Node) -> None:
        x, weight, *bias = node.inputs
        rank, have = len(self.shape(x)), self.order[x]
        extra = [self.at(b, identity(1)) for b in bias]
        if have == NCL or rank == 4:  # a 1x1 convolution of an image, which tokens are too
            order = NCHW if rank == 4 else TOKENS
        elif self._is_stream(x, (2,)):
            order = TOKENS
        elif have == TOKENS or have[-1] == rank - 1:
            order = have
        else:
            order = identity(rank)
        if order in (NCHW, TOKENS):
            kernel = self.at(weight, (0, 1, None, None))
            args = ((1, 1), (0, 0), (0, 0), (1, 1), 1)
            self.emit(node, "Conv", [self.at(x, order), kernel, *extra], order, *args)
        else:
            inputs = [self.at(x, order), self.at(weight, identity(2)), *extra]
            self.emit(node, "Linear", inputs, order)

    def matmul(self, node: Node) -> None:
        a, b = (self._matrix(i) for i in node.inputs)
        (left, a_turned), (right, b_turned) = a, b
        rank = len(node.output.shape)
        if b_turned:  # (A B)ᵀ = Bᵀ Aᵀ: features stay where the right operand has them
            order = (*range(rank - 2), rank - 1, rank - 2)
            self.emit(node, "Matmul", [right, left], order, False, not a_turned)
        else:
            self.emit(node, "Matmul", [left, right], identity(rank), a_turned, False)

    def _matrix(self, name: str) -> tuple[str, bool]:
        """A stack of matrices and whether it lies with its last two axes exchanged."""
        rank = len(self.shape(name))
        plain = identity(rank)
        turned: Order = (*range(rank - 2), rank - 1, rank - 2)
        have = self.order.get(name, plain)
        if rank - 1 in have and rank - 2 in have:
            is_turned = have.index(rank - 1) < have.index(rank - 2)
        else:
            is_turned = False
        return self.at(name, turned if is_turned else plain), is_turned
