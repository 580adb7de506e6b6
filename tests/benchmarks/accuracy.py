"""Top-1 of the shipped models on the images their checkpoints were measured on.

    python -m tests.benchmarks.accuracy --data DIR

DIR holds ``cifar10/test.npz`` (JPEG files end to end in ``jpeg``, from ``offsets[i]`` to
``offsets[i + 1]``, and their ``labels``) and ``flower_photos/val/<class>/*.jpg``.
"""

from __future__ import annotations

import argparse
import io
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import ondevice
from ondevice.tasks import classify

Sample = tuple[object, int]  # an image, and its class


def cifar10(data: Path) -> Iterator[Sample]:
    import numpy as np

    with np.load(data / "cifar10" / "test.npz") as files:
        jpeg, offsets, labels = files["jpeg"].tobytes(), files["offsets"], files["labels"]
    for start, end, label in zip(offsets, offsets[1:], labels, strict=False):
        yield io.BytesIO(jpeg[start:end]), int(label)


def flowers(data: Path) -> Iterator[Sample]:
    folders = sorted(p for p in (data / "flower_photos" / "val").iterdir() if p.is_dir())
    for index, folder in enumerate(folders):
        for path in sorted(folder.glob("*.jpg")):
            yield path, index


# model -> images, and by how many points top-1 may differ from the checkpoint's figure
CASES: dict[str, tuple[Callable[[Path], Iterator[Sample]], float]] = {
    "shvit_nano.cifar10": (cifar10, 0.1),
    "shvit_nano.flowers": (flowers, 0.4),
}


def measure(name: str, samples: Iterator[Sample]) -> tuple[int, int]:
    """How many of the images the model names rightly, and how many there are."""
    truth: list[int] = []

    def images() -> Iterator[object]:
        for image, label in samples:
            truth.append(label)
            yield image

    model = ondevice.fuse(ondevice.create_model(name, pretrained=True))
    found = classify(model, images(), top_k=1, batch_size=50)
    right = sum(p[0].index == label for p, label in zip(found, truth, strict=True))
    return right, len(truth)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    data = parser.parse_args().data
    status = 0
    for name, (samples, tolerance) in CASES.items():
        start = time.perf_counter()
        right, count = measure(name, samples(data))
        top1 = 100 * right / count
        expected = ondevice.create_model(name, pretrained=True).info.metrics["top1"]
        fine = abs(top1 - expected) <= tolerance
        status |= not fine
        print(
            f"{name:20} {right} of {count}  top-1 {top1:.2f}  expected {expected} "
            f"± {tolerance}  {'ok' if fine else 'WRONG'}  {time.perf_counter() - start:.0f} s"
        )
    return status


if __name__ == "__main__":
    sys.exit(main())
