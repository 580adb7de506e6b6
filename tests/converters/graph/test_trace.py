"""Tracing sees every call alike and leaves a module as it was."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn
import pytest

from converters import export_module
from converters.graph.trace import trace
from ondevice.errors import ConfigError

X = mx.random.normal((2, 8), key=mx.random.key(0))


class Counter(nn.Module):
    def __init__(self):
        super().__init__()
        self.n = 0

    def __call__(self, x):
        self.n += 1
        return x * self.n


class Memory(nn.Module):
    """Gives the mean of what it was ever given."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __call__(self, x):
        self.seen.append(x)
        return sum(self.seen) / len(self.seen) + len(self.seen)


class Running(nn.Module):
    """Changes an array of its own."""

    def __init__(self):
        super().__init__()
        self.mean = mx.zeros(8)

    def __call__(self, x):
        self.mean = 0.9 * self.mean + 0.1 * x.mean(axis=0)
        return x - self.mean


class Noise(nn.Module):
    def __call__(self, x):
        return x + mx.random.normal(x.shape)


class Cache(nn.Module):
    """Makes a table when it is first called, and remembers its last result."""

    def __init__(self):
        super().__init__()
        self.inner, self._table = nn.Linear(8, 8), None
        self.inner.parts = [{"last": None}]

    def __call__(self, x):
        if self._table is None:
            self._table = mx.arange(8) * 2.0
        self.last = self.inner(x) + self._table
        self.inner.parts[0]["last"] = self.last
        return self.last


@pytest.mark.parametrize("module", [Counter, Memory, Running, Noise])
def test_a_module_that_computes_something_else_each_time_is_refused(module, tmp_path):
    net = module().eval()
    before = net.parameters()
    with pytest.raises(ConfigError, match="when it is called a second time"):
        export_module(net, X, tmp_path / "x.mlpackage")
    assert not any(tmp_path.iterdir())
    assert net.parameters() == before
    assert getattr(net, "n", 0) == 0
    assert getattr(net, "seen", []) == []


def test_no_placeholder_stays_behind():
    net = Cache().eval()
    mx.eval(net.parameters())
    wanted = net(X)
    for made in (net, Cache().eval()):
        made.inner = net.inner
        attributes = dict(vars(made)), dict(made), list(made.inner.parts)
        trace(made, X)
        assert (dict(vars(made)), dict(made), list(made.inner.parts)) == attributes
        assert mx.array_equal(made(X), wanted)


def test_a_module_that_returns_no_array_is_told_so():
    class Named(nn.Module):
        def __call__(self, x):
            return {"logits": x}, None

    with pytest.raises(ConfigError, match="gives NoneType, dict; return an array"):
        trace(Named().eval(), X)


@pytest.mark.parametrize("name", ["%A", "", "a.b"])
def test_a_name_that_makes_no_path_is_told(name):
    net = nn.Module()
    setattr(net, name, mx.ones(8))
    with pytest.raises(ConfigError, match="the module has a parameter or part called"):
        trace(net.eval(), X)
    inner = nn.Sequential(nn.Linear(8, 8))
    inner.table = {"x.y": nn.Linear(8, 8)}
    with pytest.raises(ConfigError, match=r"table has a parameter or part called 'x\.y'"):
        trace(inner.eval(), X)
