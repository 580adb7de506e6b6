"""Core AI beside MLX and beside Core ML: what both packages of a model compute and cost.

    python -m tests.benchmarks.coreai networks [NAME...]
    python -m tests.benchmarks.coreai accuracy [PRESET...] [--images 1000] [--apple]

``networks`` takes weights as a new model has them and one image, in float32 at the native
size. Errors are largest differences over the standard deviation of the output; "unfused" is
MLX against itself, which says how far the same sums in another order lie apart. Inner values
are the evaluator's against the runtime's, by ``verification.against``. ``accuracy``
needs ``cifar10/{train,test}.npz`` in the folder that the variable ONDEVICE_DATA names, as
``tests.benchmarks.accuracy`` has them; with ``--apple`` our evaluator rounds as Apple's
runtime does.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from inspect import signature
from itertools import islice
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

import ondevice
from converters import export, load_package
from converters.compress.recipe import PRESETS
from converters.coreml.reference.conv import conv
from converters.coreml.reference.linear import linear
from converters.coreml.reference.registry import EVALUATORS, Array, Evaluator
from converters.coreml.reference.rounding import round_to_float16
from converters.verification.against import agreement
from ondevice.image.preprocess import normalize, resize_and_crop
from ondevice.registry import list_models

from .accuracy import cifar10

LARGE = 1 << 25  # values of a network's largest layer maps from which on only outputs are seen


def error(ours: Any, theirs: Any) -> float:
    a, b = (np.asarray(x, np.float64) for x in (ours, theirs))
    return float(np.abs(a - b).max() / b.std())


def network(name: str, folder: Path) -> str:
    """One line of the table."""
    mx.random.seed(0)
    model = ondevice.create_model(name)
    signature = model.signature.select(None)
    output = signature.default_outputs[0]
    given = signature.read(next(iter(signature.samples())))
    prepared = signature.prepare(given)
    mlx = np.array(signature.compute(ondevice.fuse(model), *prepared)[output])
    unfused = np.array(signature.compute(model, *prepared)[output])
    seconds: dict[Path, float] = {}
    paths = [folder / "m.mlpackage", folder / "m.aimodel"]
    options: dict[str, Any] = {"precision": "float32", "timed": seconds.__setitem__}
    export(model, paths[0], also=paths[1], **options)
    core_ml, core_ai = map(load_package, paths)
    named = dict(zip(core_ai.inputs, given, strict=True))
    start = time.perf_counter()
    ours = core_ai.predict(named)[output]
    ran = time.perf_counter() - start
    theirs = core_ml.predict(named)[output]
    inner = "-"
    if max(int(np.prod(s)) for s in core_ai.stored().shapes.values()) < LARGE:
        found = agreement(core_ml, core_ai, given)
        inner = f"{found.worst_error:.0e} of {found.values}"
    errors = (error(ours, mlx), error(theirs, mlx), error(ours, theirs), error(unfused, mlx))
    cells = [f"{e:.0e}" for e in errors]
    sizes = [load_package(p).size / 1e6 for p in paths]
    return " | ".join(
        [
            f"| {name}",
            *cells,
            inner,
            *(f"{s:.1f}" for s in sizes),
            *(f"{seconds[p]:.1f}" for p in paths),
            f"{ran:.1f} |",
        ]
    )


def networks(names: Sequence[str]) -> None:
    print(
        "network, runtime-MLX, evaluator-MLX, runtime-evaluator, unfused-MLX, inner values, "
        "MB Core ML, MB Core AI, s Core ML, s Core AI, s to run"
    )
    for name in names or sorted({n.partition(".")[0] for n in list_models()}):
        with tempfile.TemporaryDirectory() as folder:
            print(network(name, Path(folder)), flush=True)


def accuracy(data: Path, images: int, presets: Sequence[str]) -> None:
    """Top-1 of MLX and of both packages, on the first test images."""
    model = ondevice.create_model("shvit_nano.cifar10")
    spec, fused = model.info.preprocess, ondevice.fuse(model)
    calibration = [
        resize_and_crop(image, spec) for image, _ in islice(cifar10(data, "train"), 64)
    ]
    shown = [
        (resize_and_crop(image, spec), truth) for image, truth in islice(cifar10(data), images)
    ]
    truths = np.array([truth for _, truth in shown])
    mlx = np.concatenate(
        [np.array(fused(normalize(mx.array(pixels[None]), spec))) for pixels, _ in shown]
    )
    print(f"MLX: {(mlx.argmax(1) == truths).mean():.2%} of {len(shown)} images")
    print(
        "recipe, top-1 Core ML, top-1 Core AI, same class, as MLX Core ML, as MLX Core AI, "
        "bytes Core ML, bytes Core AI, PSNR Core ML, PSNR Core AI"
    )
    for preset in presets or ("float16", *PRESETS):
        with tempfile.TemporaryDirectory() as folder:
            paths = [Path(folder) / "m.mlpackage", Path(folder) / "m.aimodel"]
            options: dict[str, Any] = {
                "recipe": "" if preset == "float16" else preset,
                "calibration": calibration,
            }
            export(model, paths[0], also=paths[1], target="iOS18", **options)
            packages = [load_package(path) for path in paths]
            sizes = [f"{package.size:,}" for package in packages]
            logits = [
                np.concatenate([p.predict({"image": pixels})["logits"] for pixels, _ in shown])
                for p in packages
            ]
        classes = [found.argmax(1) for found in logits]
        cells = [
            preset,
            *(f"{(found == truths).mean():.2%}" for found in classes),
            f"{(classes[0] == classes[1]).sum()}",
            *(f"{(found == mlx.argmax(1)).sum()}" for found in classes),
            *sizes,
            *(f"{psnr(found, mlx):.1f}" for found in logits),
        ]
        print(" | ".join(cells), flush=True)
        if preset == "float16":
            for name, found in zip(("Core ML", "Core AI"), logits, strict=True):
                for line in changes(name, found, mlx):
                    print(line, flush=True)


def psnr(found: Array, mlx: Array) -> float:
    return float(20 * np.log10(np.abs(mlx).max() / np.sqrt(np.square(found - mlx).mean())))


def changes(name: str, found: Array, mlx: Array) -> Iterator[str]:
    """Where a package names another class than MLX: how near the two classes were."""
    for image in np.flatnonzero(found.argmax(1) != mlx.argmax(1)):
        one, other = mlx[image].argmax(), found[image].argmax()
        margin, left = (x[image, one] - x[image, other] for x in (mlx, found))
        yield (
            f"{name}, image {image}: two classes {margin:.4f} apart in MLX, {left:.4f} here; "
            f"the largest difference of any image's logit is {np.abs(found - mlx).max():.4f}"
        )


def round_as_apple() -> None:
    """Have our evaluator round half precision as Apple's runtime for CPUs does, which
    ``test_contract.py`` states: a convolution's sum before its bias is added, and every term
    and partial sum of a matrix product."""

    def biased(op: Callable[..., Array]) -> Evaluator:
        def run(bias: Array | None = None, **given: Any) -> Array:
            y = op(**given)
            if bias is None:
                return y
            axes = (1,) * (y.ndim - 2)
            return round_to_float16(y) + bias.reshape(-1, *axes)

        run.__signature__ = signature(op)  # type: ignore[attr-defined]  # read by a plan
        return Evaluator(run)

    def matmul(x: Array, y: Array, transpose_x: bool = False, transpose_y: bool = False) -> Any:
        a = np.swapaxes(x, -1, -2) if transpose_x else x
        b = np.swapaxes(y, -1, -2) if transpose_y else y
        total = np.float32(0)
        for k in range(a.shape[-1]):
            term = round_to_float16(a[..., k : k + 1] * b[..., k : k + 1, :])
            total = round_to_float16(total + term)
        return total

    EVALUATORS.update(conv=biased(conv), linear=biased(linear), matmul=Evaluator(matmul))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("networks", "accuracy"))
    parser.add_argument("names", nargs="*")
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument(
        "--apple", action="store_true", help="let our evaluator round as Apple's runtime does"
    )
    given = parser.parse_args()
    if given.apple:
        round_as_apple()
    if given.what == "networks":
        networks(given.names)
    elif "ONDEVICE_DATA" not in os.environ:
        parser.error("set ONDEVICE_DATA to the folder of cifar10/")
    else:
        accuracy(Path(os.environ["ONDEVICE_DATA"]), given.images, given.names)
    return 0


if __name__ == "__main__":
    sys.exit(main())
