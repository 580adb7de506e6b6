"""What each recipe costs, in bytes and in accuracy, on the shipped models.

    python -m tests.benchmarks.compression --data DIR [--images 1000] [--recipes int8,palette4]
    python -m tests.benchmarks.compression --read a.json,b.json    # what was measured in parts

DIR is as for ``tests.benchmarks.accuracy``, with ``cifar10/train.npz`` and
``flower_photos/train/<class>/*.jpg`` to calibrate on. Every figure comes from the saved
package, read back and run by the reference. Sizes are of the whole package against the
half-precision one; "naive" rounds to the nearest, without calibration, and with ranges that
hold everything seen. A second table sets each method beside what it has to beat, at the same
size. Top-1 of 500 images moves in steps of 0.2, so the divergence from the half-precision
package's scores (KL, over all classes) and the classes both agree on are given too; with
``--more N``, N training images that nothing was calibrated on count like the others.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

import ondevice
from converters import export, load_package
from converters.compress.recipe import CompressionRecipe, Rule
from ondevice.image.preprocess import resize_and_crop
from ondevice.weights.output import folder_bytes

from .accuracy import CASES

NAIVE = {"rounding": "nearest"}


@dataclass(frozen=True)
class Case:
    """One line of the table; a budget is the name of the line whose size it is."""

    recipe: Any
    target: str = "iOS17"
    calibrated: bool = True
    budget: str = ""
    against: str = ""  # the line that it has to beat


def _rule(method: str = "palettize", **options: Any) -> Any:
    return CompressionRecipe((Rule("*", method, **options),))


def _eight(activations: str, equalization: str = "", **options: Any) -> Any:
    rules = (Rule("*", "quantize", bits=8, **options),)
    return CompressionRecipe(rules, activations, equalization=equalization)


def _plain(target: str = "iOS17", **options: Any) -> Case:
    return Case(_rule(**options, **NAIVE), target, calibrated=False)


_BLOCK: dict[str, Any] = {"method": "quantize", "bits": 4, "block": 32}
_SPARSE: dict[str, Any] = {"method": "prune", "sparsity": 0.4}
LINES: dict[str, Case] = {
    "float16": Case("", calibrated=False),
    "int8 naive": _plain(method="quantize"),
    "int8": Case("int8", against="int8 naive"),
    "palette8 naive": _plain(bits=8),
    "palette8": Case("palette8", against="palette8 naive"),
    "palette6 naive": _plain(bits=6),
    "palette6": Case("palette6", against="palette6 naive"),
    "palette4 naive": _plain("iOS18", bits=4, group=16),
    "palette4 bias": Case(_rule(bits=4, group=16, **NAIVE), "iOS18", against="palette4 naive"),
    "palette4": Case("palette4", "iOS18", against="palette4 naive"),
    "palette4 17 naive": _plain(bits=4),
    "palette4 iOS17": Case("palette4", against="palette4 17 naive"),
    "mixed": Case("", "iOS18", budget="palette4", against="palette4"),
    "mixed iOS17": Case("", budget="palette4 iOS17", against="palette4 iOS17"),
    "int4-block naive": _plain("iOS18", **_BLOCK),
    "int4-block": Case("int4-block", "iOS18", against="int4-block naive"),
    "w8a8 naive": Case(_eight("minmax", **NAIVE)),
    "w8a8": Case("w8a8", against="w8a8 naive"),
    "w8a8 minmax": Case(_eight("minmax"), against="w8a8 naive"),
    "w8a8 percentile": Case(_eight("percentile"), against="w8a8 naive"),
    "w8a8 mse": Case(_eight("mse"), against="w8a8 naive"),
    "w8a8 kl": Case(_eight("kl"), against="w8a8 naive"),
    "w8a8 auto": Case(_eight("auto"), against="w8a8 naive"),
    "w8a8 repq": Case(_eight("auto", "repq"), against="w8a8 naive"),
    "a8w4": Case("a8w4", "iOS18"),
    "palette4-int8": Case("palette4-int8", "iOS18", against="palette4 naive"),
    "prune naive": _plain("iOS18", **_SPARSE),
    "prune": Case("prune", "iOS18", against="prune naive"),
    "prune-int8": Case("prune-int8", "iOS18"),
    "prune-palette4": Case("prune-palette4", "iOS18"),
}


def spread(places: int, count: int) -> list[int]:
    """``count`` of so many places, evenly."""
    found: list[int] = np.linspace(0, places - 1, count).astype(int).tolist()
    return found


def _scores(path: Path, images: list[Any]) -> np.ndarray[Any, Any]:
    package = load_package(path)
    return np.stack([package.predict({"image": x})["logits"][0] for x in images])


def scores(path: Path, images: list[Any], workers: int) -> np.ndarray[Any, Any]:
    """Class scores of every image, from the saved package."""
    if workers == 1:
        return _scores(path, images)
    parts = [images[i::workers] for i in range(workers)]
    with ProcessPoolExecutor(workers) as pool:
        found = list(pool.map(partial(_scores, path), parts))
    out = np.empty((len(images), found[0].shape[1]), np.float32)
    for i, part in enumerate(found):
        out[i::workers] = part
    return out


def divergence(p: np.ndarray[Any, Any], q: np.ndarray[Any, Any]) -> float:
    """Mean KL divergence of the probabilities behind two arrays of scores."""
    a, b = (x - np.logaddexp.reduce(x, axis=1, keepdims=True) for x in (p, q))
    return float((np.exp(a) * (a - b)).sum(axis=1).mean())


def lines(name: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    model = ondevice.create_model(name, pretrained=True)
    spec = model.info.preprocess
    samples = list(islice(CASES[name][0](options.data), options.images))
    others = dict(enumerate(CASES[name][0](options.data, "train")))
    calibration = [others.pop(i) for i in spread(len(others), options.calibration)]
    images = [resize_and_crop(image, spec) for image, _ in calibration]
    rest = list(others.values())
    samples += [rest[i] for i in spread(len(rest), options.more)]
    images = [resize_and_crop(image, spec) for image, _ in samples]
    truth = np.array([label for _, label in samples])
    sizes: dict[str, int] = {}
    reference = np.zeros(0)
    for line, case in LINES.items():
        if options.recipes and line not in {"float16", *options.recipes.split(",")}:
            continue
        with TemporaryDirectory() as folder:
            path = export(
                model,
                Path(folder) / "model.mlpackage",
                target=case.target,
                recipe=case.recipe,
                calibration=images if case.calibrated else (),
                budget=sizes[case.budget] if case.budget else 0,
            )
            sizes[line] = folder_bytes(path)
            found = scores(path, images, options.workers)
        reference = found if line == "float16" else reference
        same = found.argmax(axis=1) == reference.argmax(axis=1)
        yield {
            "model": name,
            "recipe": line,
            "target": case.target,
            "bytes": sizes[line],
            "share": round(sizes[line] / sizes["float16"], 4),
            "top1": round(100 * float((found.argmax(axis=1) == truth).mean()), 2),
            "agreement": round(100 * float(same.mean()), 2),
            "kl": round(divergence(reference, found), 6),
        }


def show(rows: list[dict[str, Any]]) -> None:
    """Each method beside what it has to beat: bytes, top-1, and the divergence."""
    found = {(row["model"], row["recipe"]): row for row in rows}
    print(f"\n{'model':20} {'method':16} {'against':18} bytes   top-1     KL  verdict")
    for (model, line), row in found.items():
        other = found.get((model, LINES[line].against))
        if other is None:
            continue
        change = row["kl"] / max(other["kl"], 1e-9) - 1
        gain = row["top1"] - other["top1"]
        verdict = "better" if change < 0 else "WORSE" if change > 0 else "the same"
        print(
            f"{model:20} {line:16} {LINES[line].against:18} "
            f"{row['bytes'] / other['bytes'] - 1:+6.1%} {gain:+6.2f} {change:+6.0%}  {verdict}"
        )


def measured(options: argparse.Namespace) -> list[dict[str, Any]]:
    rows = []
    print(f"{'model':20} {'recipe':16} target    bytes  share   top-1   loss  agree       KL")
    for name in options.models.split(","):
        for row in lines(name, options):
            rows.append(row)
            base = next(r for r in rows if r["model"] == name)
            row["loss"] = round(base["top1"] - row["top1"], 2)
            print(
                "{model:20} {recipe:16} {target} {bytes:8} {share:6.4f} {top1:7.2f} "
                "{loss:6.2f} {agreement:6.2f} {kl:8.5f}".format(**row),
                flush=True,
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--data", type=Path)
    what.add_argument("--read", help="reports written with --json, by commas")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--more", type=int, default=0)
    parser.add_argument("--calibration", type=int, default=512)
    parser.add_argument("--models", default=",".join(CASES))
    parser.add_argument("--recipes", default="")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.read:
        rows = [
            row
            for file in options.read.split(",")
            for row in json.loads(Path(file).read_text())
        ]
    else:
        rows = measured(options)
    show(rows)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2))


if __name__ == "__main__":
    main()
