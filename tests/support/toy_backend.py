"""A back end as small as can be: a graph as JSON, which NumPy runs."""

from __future__ import annotations

import json
from types import SimpleNamespace as Record
from typing import Any

import numpy as np

from converters.backend import Backend, Settings
from converters.program import Feature, Program, Weight

NUMPY = {"Linear": lambda x, w, b: x @ w.T + b, "Relu": lambda x: np.maximum(x, 0)}


class Toy(Program):
    setting_names = ("precision", "attention", "gelu")

    def __init__(self, path: Any) -> None:
        self.path, self.said = path, json.loads((path / "graph.json").read_text())
        self.constants = {k: np.array(v, np.float32) for k, v in self.said["constants"].items()}

    @property
    def metadata(self) -> Any:
        return self.said["metadata"]

    def features(self, which: str, function: Any = None) -> Any:
        return {n: Feature(n, "array", tuple(s), "float32") for n, s, _ in self.said[which]}

    def results(self) -> Any:
        return [inside for _, _, inside in self.said["output"]]

    def stored(self, function: Any = None) -> Any:
        operations = [
            Record(type=op, name=out, outputs=(out,), reads=lambda read=read: iter(read))
            for op, read, out, _ in self.said["nodes"]
        ]
        return Record(
            operations=operations,
            producers={op.name: op for op in operations},
            shapes={out: tuple(shape) for _, _, out, shape in self.said["nodes"]},
            weights={k: Weight(k, v.shape, "text", 9) for k, v in self.constants.items()},
        )

    def array(self, name: str, function: Any = None) -> Any:
        return self.constants[name]

    def walk(self, inputs: Any, *, function: Any = None) -> Any:
        given = self.given(inputs, function)
        values = self.constants | {inside: given[n] for n, _, inside in self.said["input"]}
        for op, read, out, _ in self.said["nodes"]:
            values[out] = NUMPY[op](*(values[name] for name in read))
            yield out, values[out]


def _build(graph: Any, function: Any, settings: Any, forms: Any) -> Any:
    inputs = zip(function.input_names, graph.inputs, strict=True)
    outputs = zip(function.output_names, graph.outputs, strict=True)
    return {
        "input": [(name, v.shape, v.name) for name, v in inputs],
        "output": [(name, graph.shape(v), v) for name, v in outputs],
        "constants": {k: np.asarray(v, float).tolist() for k, v in graph.constants.items()},
        "nodes": [(n.op, n.inputs, n.output.name, n.output.shape) for n in graph.nodes],
    }


def _save(parts: Any, path: Any, metadata: Any) -> None:
    path.mkdir()
    said = parts["main"].built | {"metadata": {**metadata, **parts["main"].metadata}}
    (path / "graph.json").write_text(json.dumps(said))


BACKEND = Backend(
    name="toy",
    suffix=".toy",
    marker="graph.json",
    settings=Settings,
    check=lambda graph: graph.refuse(node for node in graph.nodes if node.op not in NUMPY),
    build=_build,
    size_of=lambda built: len(json.dumps(built)),
    save=_save,
    load=Toy,
    names=lambda inputs, outputs: (list(inputs), list(outputs)),
)
