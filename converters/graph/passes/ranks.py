"""Values of more than five axes, which Core ML does not have, live in five or fewer.

A value lies in memory row by row, whatever its axes are called: so each wide value is kept
as a narrow one with the same elements in the same order, and a reshape costs nothing. What
is computed of it is computed on axes merged as far as the operation treats them alike. What
treats more than five of them apart is done in steps.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from ondevice.errors import UnsupportedOpError

from ..graph import Graph, Node, Shape, Value, computed, free_name
from ..ops import op
from .orders import MAX_RANK
from .permutations import blocks, runs, steps


def fit_rank(graph: Graph) -> Graph:
    """Rewrite what has more than five axes. Raises UnsupportedOpError for what cannot be."""
    if all(len(v.shape) <= MAX_RANK for v in graph.values.values()):
        return graph
    if wide := graph.crossing(lambda value: len(value.shape) > MAX_RANK):
        raise UnsupportedOpError(
            f"{wide}: an input or output has at most {MAX_RANK} axes in a package; reshape it "
            "in the module"
        )
    return _Narrow(graph).run()


# Which rule serves an operation, by its rule of layout or by what its arguments are called.
_RULES = {
    "concatenate": "along",
    "split": "along",
    "affine": "elementwise",
    "arg_reduce": "along",
}
_BY_NAME = {"Broadcast": "broadcast", "LogSumExp": "softmax"}


def _rule(node: Node) -> str:
    entry = op(node.op)
    if entry.layout == "logical":
        return _BY_NAME.get(node.op) or ("along" if "axis" in entry.args else "")
    return _RULES.get(entry.layout, entry.layout)


class _Narrow:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.constants = dict(graph.constants)
        self.values = dict(graph.values)  # and what is made here
        self.kept: dict[str, str] = {}  # a wide value's name, and the narrow one's
        self.views: dict[tuple[str, Shape], str] = {}
        self.nodes: list[Node] = []

    def run(self) -> Graph:
        refused = []
        for node in self.graph.nodes:
            names = (*node.inputs, *(v.name for v in node.outputs))
            rule = getattr(self, _rule(node) or "_", None)
            if all(len(self.shape(name)) <= MAX_RANK for name in names):
                self.nodes.append(node)
            elif rule is None:
                refused.append(node)
            else:
                rule(node)
        self.graph.refuse(refused)
        return self.graph.with_nodes(self.nodes, constants=self.constants)

    # -- values ---------------------------------------------------------------------------

    def shape(self, name: str) -> Shape:
        return self.values[name].shape

    def source(self, name: str) -> str:
        """The narrow value that has the elements of ``name``."""
        return self.kept.get(name, name)

    def view(self, name: str, shape: Shape) -> str:
        """The elements of ``name`` in another shape, of at most five axes."""
        source = self.source(name)
        if self.shape(source) == shape:
            return source
        if (source, shape) not in self.views:
            made = self._constant if source in self.constants else self._reshaped
            self.views[source, shape] = made(source, shape)
        return self.views[source, shape]

    def _reshaped(self, name: str, shape: Shape) -> str:
        return self.emit("Reshape", (name,), replace(self.values[name], shape=shape), shape)

    def _constant(self, name: str, shape: Shape) -> str:
        array = self.constants[name].reshape(shape)
        if self.graph.uses[name] > 1:
            name = free_name(f"{name}.0", self.constants)
        self.constants[name] = array
        self.values[name] = Value(name, shape, str(array.dtype))
        return name

    def emit(self, op: str, inputs: Sequence[str], like: Value, *args: object) -> str:
        """Append a node whose output is ``like`` one, under a new name: that name."""
        (name,) = self.emit_all(op, inputs, [like], *args)
        return name

    def emit_all(
        self, op: str, inputs: Sequence[str], likes: Sequence[Value], *args: object
    ) -> list[str]:
        count = len(self.values)
        outputs = tuple(
            replace(v, name=computed(f"narrow.{count + i}")) for i, v in enumerate(likes)
        )
        self.values |= {v.name: v for v in outputs}
        self.nodes.append(Node(op, tuple(inputs), outputs, args))
        return [v.name for v in outputs]

    def give(self, value: Value, name: str) -> None:
        """Let ``name`` stand for ``value``: a narrow one gets its own name and shape back."""
        if len(value.shape) > MAX_RANK:
            self.kept[value.name] = self.source(name)
        else:
            self.nodes.append(Node("Reshape", (self.source(name),), (value,), (value.shape,)))

    def same(self, node: Node, inputs: Sequence[str], shape: Shape, *args: object) -> None:
        """Emit the node's operation on narrow inputs, for its only output."""
        like = replace(node.output, shape=shape)
        self.give(node.output, self.emit(node.op, inputs, like, *args))

    # -- rules, called as those of the layout pass ------------------------------------------

    def reshape(self, node: Node) -> None:
        (x,) = node.inputs
        self.give(node.output, self.source(x))

    def unary(self, node: Node) -> None:
        (x,) = node.inputs
        shape = self.shape(self.source(x))
        self.same(node, [self.view(x, shape)], shape, *node.args)

    def transpose(self, node: Node) -> None:
        (x,) = node.inputs
        before = self.shape(x)
        groups, order = blocks(before, node["axes"])
        lying = [math.prod(before[a] for a in group) for group in groups]
        name = self.source(x)
        for sizes, moved in steps(order):
            ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
            parts = [lying[e - n : e] for n, e in zip(sizes, ends, strict=True)]
            merged = [math.prod(part) for part in parts]
            like = replace(node.output, shape=tuple(merged[i] for i in moved))
            name = self.emit("Transpose", [self.view(name, tuple(merged))], like, moved)
            lying = [n for i in moved for n in parts[i]]
        self.give(node.output, name)

    def elementwise(self, node: Node) -> None:
        shape = node.output.shape
        inputs = list(node.inputs)
        groups = self._alike(inputs, shape)
        for name in sorted(inputs, key=lambda i: math.prod(self.shape(i))):
            if len(groups) > MAX_RANK:
                inputs[inputs.index(name)] = self._spread(name, shape)
                groups = self._alike(inputs, shape)
        views = [self._merged(name, groups, shape) for name in inputs]
        self.same(node, views, _sizes(groups, shape), *node.args)

    def _alike(self, inputs: Sequence[str], shape: Shape) -> list[list[int]]:
        """The axes of a result over which each operand either runs or is repeated."""
        wide = [_padded(self.shape(name), len(shape)) for name in inputs]
        return runs([tuple(w[a] == n for w in wide) for a, n in enumerate(shape)], shape)

    def _merged(self, name: str, groups: list[list[int]], shape: Shape) -> str:
        if self.shape(name) == ():
            return name
        return self.view(name, _sizes(groups, _padded(self.shape(name), len(shape))))

    def broadcast(self, node: Node) -> None:
        self.give(node.output, self._spread(node.inputs[0], node.output.shape))

    def _spread(self, name: str, shape: Shape) -> str:
        """The value repeated to ``shape``, one group of axes after the other."""
        full = _padded(self.shape(name), len(shape))
        groups = runs([n == m for n, m in zip(full, shape, strict=True)], shape)
        made, sizes, wanted = (
            self.source(name),
            list(_sizes(groups, full)),
            _sizes(groups, shape),
        )
        if len(groups) <= MAX_RANK:
            like = replace(self.values[name], shape=wanted)
            view = self.view(name, tuple(sizes))
            made, sizes = self.emit("Broadcast", [view], like, wanted), list(wanted)
        for i, size in enumerate(wanted):
            if sizes[i] != size:
                outer, inner = math.prod(sizes[:i]), math.prod(sizes[i + 1 :])
                like = replace(self.values[name], shape=(outer, size, inner))
                x = self.view(made, (outer, 1, inner))
                made, sizes[i] = self.emit("Broadcast", [x], like, like.shape), size
        return self._as(made, name, shape)

    def _as(self, made: str, name: str, shape: Shape) -> str:
        """``made`` under a name that has ``shape``, though it is kept otherwise."""
        title = computed(f"spread.{len(self.values)}")
        self.values[title] = replace(self.values[name], name=title, shape=shape)
        self.kept[title] = made
        return title

    def reduce(self, node: Node) -> None:
        (x,), (kind, axes, _) = node.inputs, node.args
        self._over(node, x, axes, lambda at: (kind, at, True))

    def _over(self, node: Node, x: str, axes: Sequence[int], args: Any) -> None:
        """A reduction, at once if it can be, or else over one group of axes after the other."""
        shape = self.shape(x)
        groups = runs([a in axes for a in range(len(shape))], shape)
        sizes, gone = list(_sizes(groups, shape)), [g[0] in axes for g in groups]
        todo = [i for i, is_gone in enumerate(gone) if is_gone]
        at_once = [todo] if len(groups) <= MAX_RANK else [[i] for i in todo]
        made = self.source(x)
        for which in filter(None, at_once):
            at: tuple[int, ...] = (1,)
            if len(which) < len(todo):
                (i,) = which
                view = [math.prod(sizes[:i]), sizes[i], math.prod(sizes[i + 1 :])]
            else:
                view, at = list(sizes), (*which,)
            after = tuple(1 if i in at else n for i, n in enumerate(view))
            like = replace(node.output, shape=after)
            made = self.emit(node.op, [self.view(made, tuple(view))], like, *args(at))
            for i in which:
                sizes[i] = 1
        self.give(node.output, made)

    def softmax(self, node: Node) -> None:
        """Of the last axis."""
        (x,) = node.inputs
        rows, last = math.prod(self.shape(x)[:-1]), node.output.shape[-1]
        self.same(node, [self.view(x, (rows, self.shape(x)[-1]))], (rows, last), *node.args)

    def layer_norm(self, node: Node) -> None:
        (x, *affine), (axes, eps) = node.inputs, node.args
        shape = self.shape(x)
        groups = runs([a in axes for a in range(len(shape))], shape)
        sizes = _sizes(groups, shape)
        at = tuple(i for i, group in enumerate(groups) if group[0] in axes)
        if len(groups) > MAX_RANK:
            self.graph.refuse([node])
        self.same(node, [self.view(x, sizes), *affine], sizes, at, eps)

    def linear(self, node: Node) -> None:
        x, *rest = node.inputs
        rows, width = math.prod(self.shape(x)[:-1]), node.output.shape[-1]
        self.same(node, [self.view(x, (rows, self.shape(x)[-1])), *rest], (rows, width))

    def matmul(self, node: Node) -> None:
        batch = node.output.shape[:-2]
        inputs = list(node.inputs)
        for name in sorted(inputs, key=lambda i: math.prod(self.shape(i))):
            if len(self._stacks(inputs, batch)) > MAX_RANK - 2:
                at, matrix = inputs.index(name), self.shape(name)[-2:]
                inputs[at] = self._spread(name, (*batch, *matrix))
        groups = self._stacks(inputs, batch)
        views = [
            self.view(
                name,
                (
                    *_sizes(groups, _padded(self.shape(name)[:-2], len(batch))),
                    *self.shape(name)[-2:],
                ),
            )
            for name in inputs
        ]
        self.same(node, views, (*_sizes(groups, batch), *node.output.shape[-2:]), *node.args)

    def _stacks(self, inputs: Sequence[str], batch: Shape) -> list[list[int]]:
        wide = [_padded(self.shape(name)[:-2], len(batch)) for name in inputs]
        return runs([tuple(w[a] == n for w in wide) for a, n in enumerate(batch)], batch)

    def along(self, node: Node) -> None:
        """What goes along one axis: all before it are one axis, and all behind it."""
        axis = node["axis"]

        def view(shape: Shape) -> Shape:
            return math.prod(shape[:axis]), shape[axis], math.prod(shape[axis + 1 :])

        inputs = [self.view(name, view(self.shape(name))) for name in node.inputs]
        likes = [replace(v, shape=view(v.shape)) for v in node.outputs]
        made = self.emit_all(node.op, inputs, likes, *node.with_args(axis=1).args)
        for value, name in zip(node.outputs, made, strict=True):
            self.give(value, name)

    def take(self, node: Node) -> None:
        (x, index), (axis,) = node.inputs, node.args
        shape, count = self.shape(x), self.shape(index)[0]
        outer, inner = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
        view = self.view(x, (outer, shape[axis], inner))
        self.same(node, [view, index], (outer, count, inner), 1)

    def slice(self, node: Node) -> None:
        (x,), ranges = node.inputs, list(zip(*node.args, strict=True))
        made, shape = self.source(x), list(self.shape(x))
        for axis, (start, stop, step) in enumerate(ranges):
            size = node.output.shape[axis]
            if (start, stop, step) != (0, shape[axis], 1):
                outer, inner = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
                view = self.view(made, (outer, shape[axis], inner))
                like = replace(node.output, shape=(outer, size, inner))
                args = ((0, start, 0), (outer, stop, inner), (1, step, 1))
                made, shape[axis] = self.emit("Slice", [view], like, *args), size
        self.give(node.output, made)

    def pad(self, node: Node) -> None:
        (x, value), made = node.inputs, self.source(node.inputs[0])
        shape = list(self.shape(x))
        for axis, low, high in zip(*node.args, strict=True):
            if low or high:
                outer, inner = math.prod(shape[:axis]), math.prod(shape[axis + 1 :])
                view = self.view(made, (outer, shape[axis], inner))
                shape[axis] += low + high
                like = replace(node.output, shape=(outer, shape[axis], inner))
                made = self.emit("Pad", [view, value], like, (1,), (low,), (high,))
        self.give(node.output, made)


def _padded(shape: Shape, rank: int) -> Shape:
    return (1,) * (rank - len(shape)) + shape


def _sizes(groups: list[list[int]], shape: Shape) -> Shape:
    return tuple(math.prod(shape[a] for a in group) for group in groups)
