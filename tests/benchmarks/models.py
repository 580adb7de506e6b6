"""One line a family: is it timm's network, and what does its package cost and lose?

    python -m tests.benchmarks.models [NAME...]
    python -m tests.benchmarks.models --page > docs/measured.md

Of every golden case whose name has one of NAME: lines of code, variants and weights; the
largest errors of logits and of all maps beside timm's, plain and fused, in units of the spread
(bar: 1e-4); operations of the package, those that move data, transposes; signal over
error of its float32 and float16 forms, run by our evaluator, in decibel: on the case's weights,
and of float16 on fresh ones (bar: 55); and megabytes of packages in float16, int8 and palette4,
with the weights of 256 elements or more that these recipes left in float16.
"""

from __future__ import annotations

import argparse
import inspect as source
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from converters import export, verify
from converters.verification.inspect import inspect
from ondevice import create_model, fuse, list_models, model_spec
from ondevice.weights.output import folder_bytes
from tests.ondevice.models.test_parity import error
from tests.parity.cases import NAMES, Case, outputs

TITLES = (
    *("case", "lines", "variants", "weights", "logits", "maps"),
    *("operations", "moving", "transposes", "f32", "f16", "fresh"),
    *("MB", "int8", "palette4", "kept"),
)
LINE = "{:36}" + " {:>8}" * (len(TITLES) - 1)
PAGE = """# One network of each family, measured

Written by `python -m tests.benchmarks.models --page` on a Linux machine, with the weights of
`tests/parity`, which anybody can make again; a network and its size in pixels a row.

- logits, maps: the largest error beside PyTorch, unfused and fused, by the output's standard
  deviation.
- operations of the float16 package, of which some only move data; transposes.
- f32, f16, fresh: signal over error in dB of the float32 and the float16 package beside MLX,
  and of a float16 package of weights as a new model has them. Neither weights are trained:
  layer scales of 1e-5 or 1e-6 in new ones (ConvNeXt, DINOv2, `mci2`) leave little but what was
  rounded.
- MB of the package in float16, and by the recipes int8 and palette4; kept: weights of 256
  elements or more that a recipe left in float16.
"""
RECIPES = ("int8", "palette4")
SMALL = 256  # elements


def facts(name: str) -> tuple[int, int, int]:
    """Lines of the family's file, its variants, and their weights."""
    spec = model_spec(name)
    family = [s for n in list_models() if (s := model_spec(n)).family == spec.family]
    lines = len(Path(source.getfile(spec.build)).read_text(encoding="utf-8").splitlines())
    return lines, len(family), sum(len(s.checkpoints) for s in family)


def parity(case: Case, model: Any) -> tuple[float | None, float]:
    """Of the logits, if there are any, and of all else, in the worse of both forms."""
    found = (outputs(form, case.input[:1]) for form in (model, fuse(model)))
    errors = [
        (name == "logits", error(case, name, value))
        for given in found
        for name, value in given.items()
        if name in case.arrays
    ]
    of_logits, of_maps = ([e for logits, e in errors if logits is w] for w in (True, False))
    return max(of_logits, default=None), max(of_maps)


def picture(case: Case, model: Any) -> np.ndarray:
    """The case's first image as pixels, as far as pixels can be it."""
    spec = model.info.preprocess
    x = np.array(case.input[0]) * np.array(spec.std) + np.array(spec.mean)
    return (255 * x.clip(0, 1)).astype(np.uint8)


def packages(case: Case, model: Any, room: Path) -> Iterator[Any]:
    """What the float16 package holds, then decibels: float32, float16, fresh float16."""
    image, fresh = picture(case, model), create_model(case.model)
    output = "logits" if "head" in model else "embedding"
    forms = ((model, "float16"), (model, "float32"), (fresh, "float16"))
    paths = [room / f"{i}.mlpackage" for i in range(len(forms))]
    options = {"size": case.meta["size"], "outputs": [output]}
    for (net, precision), path in zip(forms, paths, strict=True):
        export(net, path, precision=precision, **options)
    held = inspect(paths[0])
    yield held.operation_count, held.data_moving_count, held.operations.get("transpose", 0)
    for (net, _), path in ((forms[i], paths[i]) for i in (1, 0, 2)):
        (compared,) = verify(net, path, [image]).comparisons
        yield compared.psnr_db


def compressed(case: Case, model: Any, room: Path) -> Iterator[Any]:
    """Megabytes by each recipe, then how many weights were left in float16."""
    kept, rows = 0, list[Any]()
    for recipe in RECIPES:
        path = room / f"{recipe}.mlpackage"
        accounts: list[Any] = []
        options = {"size": case.meta["size"], "recipe": recipe, "account": accounts.append}
        export(model, path, **options)
        rows = [r for r in accounts[0].rows if r.size >= SMALL and len(r.shape) > 1]
        kept += sum(r.bits >= 16 for r in rows)
        yield f"{folder_bytes(path) / 1e6:.1f}"
    yield kept


def row(name: str) -> tuple[Any, ...]:
    case = Case(name)
    model = case.create()
    logits, maps = parity(case, model)
    with tempfile.TemporaryDirectory() as room:
        counts, *decibels = packages(case, model, Path(room))
        size = folder_bytes(Path(room) / "0.mlpackage") / 1e6
        sizes = [f"{size:.1f}", *compressed(case, model, Path(room))]
    levels = (f"{level:.1f}" for level in decibels)
    errors = ("-" if logits is None else f"{logits:.1e}", f"{maps:.1e}")
    return name, *facts(case.model), *errors, *counts, *levels, *sizes


def cells_of_page(name: Any, *cells: Any) -> str:
    """A line of the page: the network, and what was measured of it."""
    return f"| {' | '.join(map(str, (name, *cells[3:])))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="parts of the cases' names; all if none")
    parser.add_argument("--page", action="store_true", help="write the page of the docs")
    given = parser.parse_args()
    line = cells_of_page if given.page else LINE.format
    if given.page:
        print(PAGE)
    print(line(*TITLES))
    if given.page:
        print(line(*["---"] * len(TITLES)))
    for name in NAMES:
        case = Case(name).model
        if case != "fastvithd" and (not given.names or any(w in name for w in given.names)):
            print(line(*row(name)), flush=True)


if __name__ == "__main__":
    main()
