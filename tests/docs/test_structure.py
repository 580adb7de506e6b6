"""The two trees stay as they are drawn: few folders, and imports that go one way."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import pytest

from .. import ROOT

TREES = ("ondevice", "converters")


def folder(module: tuple[str, ...]) -> str:
    """The folder or file directly below a tree in which a module is."""
    return ".".join(module[:2])


def imported(path: Path) -> Iterator[tuple[str, ...]]:
    """The modules of ours that a file imports, anywhere in it."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom):
            continue
        base = package[: len(package) - node.level + 1] if node.level else ()
        module = (*base, *(node.module.split(".") if node.module else ()))
        for alias in node.names if module[:1] and module[0] in TREES else ():
            inner = ROOT.joinpath(*module, alias.name)
            is_module = inner.is_dir() or inner.with_suffix(".py").is_file()
            yield (*module, alias.name) if is_module else module


def imports() -> Iterator[tuple[str, str]]:
    """Pairs of folders, the first of which imports the second."""
    for tree in TREES:
        for path in (ROOT / tree).rglob("*.py"):
            here = folder(path.relative_to(ROOT).with_suffix("").parts)
            yield from ((here, folder(module)) for module in imported(path))


def test_no_folders_import_each_other():
    graph: dict[str, set[str]] = {}
    for here, there in imports():
        if here != there:
            graph.setdefault(here, set()).add(there)
    assert {"ondevice.tasks", "ondevice.weights"} <= graph["ondevice.cli"]
    TopologicalSorter(graph).prepare()  # raises CycleError, which names a cycle


def test_the_runtime_knows_nothing_of_the_converters():
    """But for commands, which import them when they run."""
    outward = {here for here, there in imports() if there.startswith("converters")}
    assert {h for h in outward if h.startswith("ondevice")} == {"ondevice.cli"}


MOST = {"ondevice": 14, "converters": 10, "tests": 14}


@pytest.mark.parametrize("tree", MOST)
def test_a_tree_has_few_entries(tree):
    entries = {p.name for p in (ROOT / tree).iterdir()} - {"__pycache__", "py.typed"}
    assert 5 < len(entries) <= MOST[tree]


def test_benchmarks_import_what_there_is():
    """No test runs them, so that a name that is gone would not be noticed."""
    missing = []
    for path in sorted((ROOT / "tests" / "benchmarks").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in TREES:
                module = import_module(node.module or "")
                missing += [
                    f"{path.name}: {node.module}.{alias.name}"
                    for alias in node.names
                    if not hasattr(module, alias.name)
                    and not find_spec(f"{node.module}.{alias.name}")
                ]
    assert not missing


def test_coremltools_is_imported_by_what_needs_it():
    code = "import sys, converters; print('coremltools' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.stdout == "False\n"
