"""Core AI beside MLX and beside Core ML: what both packages of a model compute and cost.

    python -m tests.benchmarks.coreai networks [NAME...]
    ONDEVICE_DATA=DIR python -m tests.benchmarks.coreai accuracy [--images 1000] [PRESET...]

``networks`` takes weights as a new model has them and one image, in float32 at the native
size. Errors are largest differences over the standard deviation of the output; "unfused" is
MLX against itself, which says how far the same sums in another order lie apart. Inner values
are the evaluator's against the runtime's, by ``verification.against``. ``accuracy``
needs ``cifar10/{train,test}.npz`` in DIR, as ``tests.benchmarks.accuracy`` has them.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

import ondevice
from converters import export, load_package
from converters.compress.recipe import PRESETS
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
    print("recipe, top-1 Core ML, top-1 Core AI, alike, bytes Core ML, bytes Core AI, PSNR dB")
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
        guesses = [found.argmax(1) for found in logits]
        tops = [f"{(guess == truths).mean():.2%}" for guess in guesses]
        noise = np.sqrt(np.square(logits[1] - mlx).mean())
        cells = [
            preset,
            *tops,
            f"{(guesses[0] == guesses[1]).sum()}",
            *sizes,
            f"{20 * np.log10(np.abs(mlx).max() / noise):.1f}",
            f"as MLX: {(guesses[1] == mlx.argmax(1)).sum()}",
        ]
        print(" | ".join(cells), flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("networks", "accuracy"))
    parser.add_argument("names", nargs="*")
    parser.add_argument("--images", type=int, default=1000)
    given = parser.parse_args()
    if given.what == "networks":
        networks(given.names)
    elif "ONDEVICE_DATA" not in os.environ:
        parser.error("set ONDEVICE_DATA to the folder of cifar10/")
    else:
        accuracy(Path(os.environ["ONDEVICE_DATA"]), given.images, given.names)
    return 0


if __name__ == "__main__":
    sys.exit(main())
