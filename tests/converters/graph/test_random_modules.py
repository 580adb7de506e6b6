"""Small modules that nobody thought of: a float32 package gives MLX's numbers, or is refused.

``pytest tests/converters/graph/test_random_modules.py --hypothesis-profile thorough`` tries
10,000 of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from hypothesis import assume, event, given, note, strategies as st

from converters import export_module, load_package
from ondevice.errors import OnDeviceError

from ...support.lowered import as_module

LARGEST = 4096  # elements of a value
# Names that MLX's values, a package's operations or other parameters may have as well.
NAMES = ("A", "B", "input", "output", "weight", "bias", "x", "mul_0", "list", "a_b", "scale")

numbers = st.sampled_from(
    [-6.0, -2.0, -1.0, -0.5, 0.0, 0.01, 0.1, 0.2, 0.5, 1.0, 2.0, 3.0, 6.0]
)
positive = st.sampled_from([1e-6, 1e-5, 1e-3, 0.1, 0.5, 1.0, 1.5, 2.0, 6.0])
small = st.integers(1, 3)
edge = st.integers(0, 3)
seeds = st.integers(0, 9)

Step = Callable[[mx.array], mx.array]
STEPS: dict[str, st.SearchStrategy[Step]] = {}


def step(*arguments: st.SearchStrategy[Any]) -> Callable[[Callable[..., mx.array]], Any]:
    """Register ``fn(x, *arguments)`` as something that a module may do to an NHWC value."""

    def register(fn: Callable[..., mx.array]) -> Callable[..., mx.array]:
        name = fn.__name__
        STEPS[name] = st.tuples(*arguments).map(lambda args: _Step(name, fn, args))
        return fn

    return register


@dataclass(frozen=True)
class _Step:
    name: str
    fn: Callable[..., mx.array]
    args: tuple[Any, ...]

    def __call__(self, x: mx.array) -> mx.array:
        return self.fn(x, *self.args)

    def __repr__(self) -> str:
        return f"{self.name}{self.args}"


def constant(seed: int, *shape: int) -> mx.array:
    return mx.array(np.random.default_rng(seed).normal(size=shape).astype(np.float32))


# -- what moves data


@step(edge, edge, edge, edge, st.sampled_from([0, 0, 1]), numbers)
def pad(x, top, bottom, left, right, channels, value):
    widths = [(0, 0), (top, bottom), (left, right), (channels, 0)]
    return mx.pad(x, widths, constant_values=value) if any(map(any, widths)) else x


@step(st.permutations(range(1, 4)))
def transpose(x, axes):
    return x.transpose(0, *axes)


@step(st.integers(1, 3), st.booleans())
def halve(x, axis, second):
    if x.shape[axis] < 2:
        return x
    return mx.split(x, [x.shape[axis] // 2], axis=axis)[int(second)]


@step(st.integers(1, 3), st.sampled_from([-1, 2]))
def stride(x, axis, by):
    index: list[Any] = [slice(None)] * 4
    index[axis] = slice(None, None, by)
    return x[tuple(index)]


@step(st.integers(1, 3), st.integers(-2, 2))
def roll(x, axis, shift):
    return mx.roll(x, shift, axis=axis)


@step(st.integers(1, 3))
def twice(x, axis):
    return mx.concatenate([x, x], axis=axis)


@step()
def tokens_and_back(x):
    B, H, W, C = x.shape
    return x.reshape(B, H * W, C).swapaxes(1, 2).reshape(B, C, H, W)


@step(st.sampled_from([1, 2, 3]), st.sampled_from([1, 2]))
def upsample(x, high, wide):
    return nn.Upsample((high, wide))(x)


@step(st.integers(1, 3), seeds)
def take(x, axis, seed):
    order = np.random.default_rng(seed).integers(0, x.shape[axis], 4)
    return mx.take(x, mx.array(order), axis=axis)


# -- pools and layers


@step(small, small, small, small, st.integers(0, 1))
def max_pool(x, high, wide, down, right, padding):
    return nn.MaxPool2d((high, wide), (down, right), padding)(x)


@step(small, small, small, st.integers(0, 1))
def average_pool(x, high, wide, by, padding):
    return nn.AvgPool2d((high, wide), by, padding)(x)


@step(seeds, small, small, st.integers(0, 2), st.integers(1, 2), st.booleans(), st.booleans())
def convolution(x, seed, kernel, by, padding, dilation, depthwise, biased):
    C = x.shape[-1]
    if min(x.shape[1:3]) + 2 * padding <= dilation * (kernel - 1):
        return x  # MLX itself makes something of a kernel larger than its map
    w = constant(seed, C if depthwise else 4, kernel, kernel, 1 if depthwise else C)
    y = mx.conv2d(x, w, by, padding, dilation, C if depthwise else 1)
    return y + constant(seed + 1, y.shape[-1]) if biased else y


@step(seeds, small, small, st.integers(0, 1))
def transposed_convolution(x, seed, kernel, by, padding):
    return mx.conv_transpose2d(x, constant(seed, 3, kernel, kernel, x.shape[-1]), by, padding)


@step(seeds, st.booleans())
def linear(x, seed, biased):
    w = constant(seed, 5, x.shape[-1])
    return mx.addmm(constant(seed + 1, 5), x, w.T) if biased else x @ w.T


@step(positive, st.sampled_from([0.0, 1.0]))
def layer_norm(x, eps, of_one):
    return mx.fast.layer_norm(x, None, None, eps) if x.shape[-1] > 1 else x + of_one


@step(positive, seeds)
def group_norm(x, eps, seed):
    return nn.GroupNorm(1, x.shape[-1], eps=eps)(x) * constant(seed, x.shape[-1])


@step(positive)
def instance_norm(x, eps):
    return nn.InstanceNorm(x.shape[-1], eps=eps)(x)


@step(numbers)
def attention(x, scale):
    B, H, W, C = x.shape
    y = x.reshape(B, H * W, C)
    return (mx.softmax(scale * y @ y.swapaxes(1, 2), axis=-1) @ y).reshape(B, H, W, C)


@step(
    st.sampled_from([mx.sum, mx.mean, mx.max, mx.min]), st.sets(st.integers(1, 3), min_size=1)
)
def reduce(x, fn, axes):
    return fn(x, axis=tuple(axes), keepdims=True)


@step(st.integers(1, 3))
def softmax(x, axis):
    return mx.softmax(x, axis=axis)


# -- element by element, with odd constants


@step(st.sampled_from([mx.maximum, mx.minimum]), numbers)
def larger_of_a_multiple(x, fn, a):
    return fn(a * x, x)


@step(st.sampled_from([mx.maximum, mx.minimum]), numbers)
def larger_than(x, fn, a):
    return fn(x, a)


@step(numbers, numbers)
def clip(x, a, b):
    return mx.clip(x, min(a, b), max(a, b))


@step(numbers)
def swish(x, a):
    return x * mx.sigmoid(a * x)


@step(numbers, positive, positive)
def hard_swish(x, a, b, c):
    return x * mx.minimum(mx.maximum(x + a, 0), b) / c


@step(st.sampled_from([nn.gelu, nn.gelu_approx, nn.gelu_fast_approx, nn.silu, nn.mish]))
def activation(x, fn):
    return fn(x)


@step(st.sampled_from([nn.relu, nn.relu6, nn.hardswish, nn.softplus, nn.elu, mx.erf, mx.tanh]))
def another_activation(x, fn):
    return fn(x)


@step(st.sampled_from([mx.add, mx.subtract, mx.multiply]), numbers, st.booleans())
def with_a_number(x, fn, a, turned):
    return fn(a, x) if turned else fn(x, a)


@step(st.sampled_from([mx.add, mx.subtract, mx.multiply, mx.maximum]), seeds, st.booleans())
def with_a_vector(x, fn, seed, turned):
    a = constant(seed, x.shape[-1])
    return fn(a, x) if turned else fn(x, a)


@step(seeds)
def with_a_map(x, seed):
    return x + constant(seed, *x.shape[1:])


@step(seeds)
def channel_by_channel(x, seed):
    """One value less its channels' own, broadcast from a row."""
    return x - constant(seed, 1, 1, x.shape[2], 1) * x[:, :1]


@step(positive)
def divided(x, a):
    return x / a


@step(positive)
def floor_divided(x, a):
    return x // a


@step(positive)
def remainder(x, a):
    return x % a


@step(numbers, numbers)
def where(x, a, b):
    return mx.where(x > a, x, b)


@step(st.sampled_from([0.5, 1.0, 2.0, 3.0]))
def power(x, a):
    return mx.abs(x) ** a


@step(st.sampled_from([mx.exp, mx.square, mx.sin, mx.rsqrt, mx.log1p, mx.log2]))
def function(x, fn):
    return fn(mx.minimum(mx.abs(x), 4) + 0.5)


# -- writing to parts, and what is rewritten


def part(x, axis, first, by):
    index: list[Any] = [slice(None)] * 4
    index[axis] = slice(first % x.shape[axis], None, by)
    return tuple(index)


@step(st.integers(1, 3), edge, st.sampled_from([1, 2, -1]), numbers)
def set_to_a_number(x, axis, first, by, value):
    x = 1 * x
    x[part(x, axis, first, by)] = value
    return x


@step(st.integers(1, 3), edge, st.sampled_from([1, 2, 3, -1, -2]))
def set_to_values(x, axis, first, by):
    y, where = 1 * x, part(x, axis, first, by)
    y[where] = 2 * x[where]
    return y


@step(edge, edge, edge, edge)
def set_in_the_middle(x, top, left, high, wide):
    y = 1 * x
    y[:, top : top + high + 1, left : left + wide + 1] = (
        0.5 * x[:, top : top + high + 1, left : left + wide + 1]
    )
    return y


@step(st.sampled_from(["add", "multiply", "maximum", "minimum"]), st.integers(1, 3), seeds)
def rows_changed(x, how, axis, seed):
    rows = np.random.default_rng(seed).permutation(x.shape[axis])[:2]
    index: list[Any] = [slice(None)] * 4
    index[axis] = mx.array(rows)
    return getattr(x.at[tuple(index)], how)(0.5)


@step(numbers, numbers)
def masked(x, a, value):
    x = 1 * x
    x[x > a] = value
    return x


@step(st.integers(1, 3))
def put_at_the_largest(x, axis):
    at = mx.argmax(mx.round(4 * x), axis=axis, keepdims=True)
    return mx.put_along_axis(x, at, mx.array(1.5), axis=axis)


@step(edge, edge, edge, edge)
def edge_pad(x, top, bottom, left, right):
    return mx.pad(x, [(0, 0), (top, bottom), (left, right), (0, 0)], mode="edge")


@step(
    st.sampled_from([mx.cummax, mx.cummin, mx.cumsum, mx.cumprod]),
    st.integers(1, 3),
    st.booleans(),
)
def run(x, fn, axis, turned):
    return fn(mx.tanh(x), axis=axis, reverse=turned)


@step(st.sampled_from([mx.all, mx.any]), st.integers(1, 3), numbers)
def truths(x, fn, axis, a):
    return x * fn(mx.round(x) > a, axis=axis, keepdims=True)


@step(st.sampled_from([mx.arctan, mx.arcsinh, mx.sinh, mx.cosh, mx.arctanh]))
def angle(x, fn):
    return fn(mx.clip(x, -0.9, 0.9))


@step(positive)
def angle_of_a_point(x, a):
    return mx.arctan2(x, mx.abs(x) + a)


@step(seeds)
def turned_as_complex(x, seed):
    if x.shape[-1] % 2:
        return x
    turn = mx.exp(1j * constant(seed, x.shape[-1] // 2))
    return mx.view(mx.view(x, mx.complex64) * turn, mx.float32)


@step(st.integers(1, 3))
def with_nothing(x, axis):
    index: list[Any] = [slice(None)] * 4
    index[axis] = slice(0, 0)
    return mx.concatenate([x[tuple(index)], x], axis=axis)


@step(st.sampled_from([mx.mean, mx.max, mx.min]))
def less_a_scalar(x, fn):
    return x - 0.5 * fn(x)


@step(numbers)
def counted(x, a):
    count = mx.clip(mx.round(4 * x).astype(mx.int32), -8, 8)
    return mx.where(mx.maximum(count, 0) > a, x, (count // 2 + count % 3).astype(mx.float32))


# -- modules


@dataclass(frozen=True)
class Plan:
    """Groups of steps, each with what is done to its result and its input."""

    groups: tuple[tuple[str, tuple[Step, ...]], ...]
    names: tuple[str, ...]
    input: str
    outputs: tuple[str, ...]


JOINS: dict[str, Callable[[mx.array, mx.array], mx.array]] = {
    "sequence": lambda y, x: y,
    "residual": lambda y, x: y + x,
    "gate": lambda y, x: y * mx.sigmoid(x),
    "difference": lambda y, x: x - y,
    "product": lambda y, x: y * x,
    "beside": lambda y, x: mx.concatenate([x, y], axis=-1),
}

groups = st.tuples(
    st.sampled_from(list(JOINS)),
    st.lists(st.sampled_from(list(STEPS)).flatmap(STEPS.__getitem__), min_size=1, max_size=3),
)
plans = st.builds(
    Plan,
    st.lists(groups, min_size=1, max_size=3),
    st.lists(st.sampled_from(NAMES), min_size=2, max_size=4, unique=True),
    st.sampled_from(NAMES),
    st.lists(
        st.sampled_from(("y", "z", "weight_0", "add")), min_size=2, max_size=2, unique=True
    ),
)
shapes = st.tuples(st.integers(1, 2), st.integers(4, 9), st.integers(4, 9), st.integers(1, 6))


class Module(nn.Module):
    """A plan's groups in order, parameters of odd names before each.

    ``rounding``, if there is one, is done to the result of each step.
    """

    rounding: Callable[[mx.array], mx.array] | None

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan, self.rounding = plan, None
        for seed, name in enumerate(plan.names):
            self[name] = constant(seed, 1)

    def rounded(self, x: mx.array) -> mx.array:
        return x if self.rounding is None else self.rounding(x)

    def __call__(self, x: mx.array) -> tuple[mx.array, mx.array]:
        for i, (join, steps) in enumerate(self.plan.groups):
            a, b = self.plan.names[i % len(self.plan.names)], self.plan.names[-1]
            y = self.rounded(x * self[a] + self[b])
            for one in steps:
                y = self.rounded(one(y))
                if not 0 < y.size <= LARGEST:
                    raise UnusableError
            fits = y.shape == x.shape or (join == "beside" and y.shape[:-1] == x.shape[:-1])
            x = JOINS[join](y, x) if fits else y
        return x, x.mean(axis=(1, 2))


class UnusableError(ValueError):
    """A value that would take the test too long, or is empty."""


def results(module: Module, x: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
    return [np.array(y) for y in module(mx.array(x))]


def spread(module: Module, x: np.ndarray[Any, Any]) -> list[float]:
    """How far each result moves when each step's does by a few roundings of float32."""
    rng = np.random.default_rng(0)
    first = results(module, x)
    moved = np.zeros(len(first))
    module.rounding = lambda y: (
        y * mx.array(rng.choice([1 - 1e-6, 1 + 1e-6], y.shape).astype(np.float32))
    )
    for _ in range(4):
        changed = zip(results(module, x), first, strict=True)
        moved = np.maximum(moved, [np.abs(a - b).max() for a, b in changed])
    module.rounding = None
    return [float(m) for m in moved]


@given(plans, shapes)
def test_a_package_gives_mlxs_numbers_or_is_refused(plan, shape):
    module = as_module(Module(plan))
    x = np.array(constant(11, *shape))
    try:
        wanted = results(module, x)
    except ValueError:  # MLX itself refuses a window larger than a map
        assume(False)
    assume(all(np.isfinite(y).all() for y in wanted))
    tolerated = spread(module, x)
    assume(np.isfinite(tolerated).all())
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = export_module(
                module,
                mx.array(x),
                Path(folder) / "x.mlpackage",
                precision="float32",
                input_names=[plan.input],
                output_names=plan.outputs,
            )
        except OnDeviceError as error:
            event(f"refused: {str(error)[:60]}")
            return
        package = load_package(path)
        event("exported")
        note(f"operations: {package.operations}")
        got = package.predict(dict.fromkeys(package.inputs, x))
    for name, want, rounding in zip(plan.outputs, wanted, tolerated, strict=True):
        assert got[name].shape == want.shape
        limit = 1e-4 * np.abs(want).max() + 8 * rounding + 1e-6
        assert np.abs(got[name] - want).max() <= limit
