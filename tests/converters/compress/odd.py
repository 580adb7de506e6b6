"""A network in which every kind of weight is awkward, and what is looked at in its packages."""

from __future__ import annotations

import mlx.core as mx
import mlx.nn as nn

from converters import export_module, load_package
from converters.compress.apply import Compression
from converters.export.build import lay_out, named, rename_inputs, to_graph
from converters.function import module_function

SHAPE = (1, 24, 24, 3)


class Odd(nn.Module):
    """A stem, a depthwise and a grouped convolution, widths that divide by nothing, a table."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 22, 3, 2, 1)
        self.depthwise = nn.Conv2d(22, 22, 5, 1, 2, groups=22)
        self.wide = nn.Conv2d(22, 37, 1)
        self.grouped = nn.Conv2d(37, 74, 3, 2, 1, groups=37)
        self.up = nn.ConvTranspose2d(74, 18, 2, 2)
        self.places = mx.random.normal((12, 12, 18))
        self.norm = nn.LayerNorm(18)
        self.qkv = nn.Linear(18, 51, bias=False)
        self.head = nn.Linear(17, 29)

    def __call__(self, x: mx.array) -> mx.array:
        x = nn.relu(self.depthwise(nn.gelu(self.stem(x))))
        x = self.up(nn.relu(self.grouped(nn.relu(self.wide(x))))) + self.places
        q, k, v = mx.split(self.qkv(self.norm(x.reshape(x.shape[0], 144, 18))), 3, axis=-1)
        x = mx.softmax(q @ k.swapaxes(1, 2) / 4, axis=-1) @ v
        return self.head(x.mean(axis=1))


def exported(model, path, **options):
    """The package, and what became of its weights."""
    accounts: list[Compression] = []
    made = export_module(
        model, mx.zeros(SHAPE), path, account=accounts.append, force=True, **options
    )
    (account,) = accounts
    return load_package(made), account


def specified(package):
    """The operations as they are stored, constants included."""
    (block,) = package.saved.spec.mlProgram.functions["main"].block_specializations.values()
    return list(block.operations)


def physical(model, example=None):
    function = module_function(model, mx.zeros(SHAPE) if example is None else example)
    graph = to_graph(function)
    function = named(function, graph)
    return lay_out(rename_inputs(graph, function.input_names), function), function
