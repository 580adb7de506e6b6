"""Top-1 of the shipped models, in MLX and as packages, on what they were measured on.

    python -m tests.benchmarks.accuracy --data DIR

DIR holds ``cifar10/test.npz`` (JPEG files end to end in ``jpeg``, from ``offsets[i]`` to
``offsets[i + 1]``, and their ``labels``) and ``flower_photos/val/<class>/*.jpg``.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx

import ondevice
from converters import export, load_package
from ondevice.image.preprocess import normalize, resize_and_crop

Sample = tuple[Any, int]  # an image, and its class


def cifar10(data: Path, part: str = "test") -> Iterator[Sample]:
    import numpy as np

    with np.load(data / "cifar10" / f"{part}.npz") as files:
        jpeg, offsets, labels = files["jpeg"].tobytes(), files["offsets"], files["labels"]
    for start, end, label in zip(offsets, offsets[1:], labels, strict=False):
        yield io.BytesIO(jpeg[start:end]), int(label)


def flowers(data: Path, part: str = "val") -> Iterator[Sample]:
    folders = sorted(p for p in (data / "flower_photos" / part).iterdir() if p.is_dir())
    for index, folder in enumerate(folders):
        for path in sorted(folder.glob("*.jpg")):
            yield path, index


# model -> images, and by how many points top-1 may differ from the checkpoint's figure
CASES: dict[str, tuple[Callable[..., Iterator[Sample]], float]] = {
    "shvit_nano.cifar10": (cifar10, 0.1),
    "shvit_nano.flowers": (flowers, 0.4),
}


@dataclass(frozen=True)
class Accuracy:
    """Counts over ``images``: right by MLX, right by the package, both alike."""

    images: int
    mlx: int
    package: int
    alike: int


def measure(name: str, samples: Iterable[Sample], folder: Path) -> Accuracy:
    """Both sides on the same levels; the package runs through the reference."""
    model = ondevice.create_model(name, pretrained=True)
    package = load_package(export(model, folder / f"{name}.mlpackage"))
    fused, spec, labels = ondevice.fuse(model), model.info.preprocess, model.info.labels
    rows = []
    for image, truth in samples:
        levels = resize_and_crop(image, spec)
        ours = int(fused(normalize(mx.array(levels[None]), spec)).argmax().item())
        theirs = labels.index(package.predict({"image": levels})["classLabel"])
        rows.append((ours == truth, theirs == truth, ours == theirs))
    return Accuracy(len(rows), *map(sum, zip(*rows, strict=True)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    data = parser.parse_args().data
    status = 0
    print(f"{'model':20} images  MLX    package  expected    alike (99.8 %)")
    for name, (samples, tolerance) in CASES.items():
        expected = ondevice.create_model(name, pretrained=True).info.metrics["top1"]
        with tempfile.TemporaryDirectory() as folder:
            found = measure(name, samples(data), Path(folder))
        mlx, package, alike = (
            100 * n / found.images for n in (found.mlx, found.package, found.alike)
        )
        fine = max(abs(mlx - expected), abs(package - expected)) <= tolerance and alike >= 99.8
        status |= not fine
        print(
            f"{name:20} {found.images:6}  {mlx:.2f}  {package:.2f}    {expected} ± {tolerance}"
            f"  {alike:.2f}  {'ok' if fine else 'WRONG'}"
        )
    return status


if __name__ == "__main__":
    sys.exit(main())
