"""A golden image: one generated photo, and what a package has to make of it at each step.

An app runs it at its first launch: other pixels mean another resize, other outputs another
network. It lies beside the package, as ``NAME.golden.json``.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from ondevice.config import Preprocess
from ondevice.errors import PackageError
from ondevice.image.preprocess import normalize
from ondevice.weights.output import replacing

if TYPE_CHECKING:
    from ..graph.graph import Array
    from ..program import Program
    from . import Function

SUFFIX = ".golden.json"
VERSION = 1
WIDTH, HEIGHT = 80, 60  # wider than high, so that a crop shows
MAX_ELEMENTS = 1_000_000  # an output of more is left out, and named
POSITIONS = 64  # at which the normalized values are told
# The largest difference over the largest value of an output. Half precision, as a Neural Engine
# rounds it, stays below; other channel orders, normalizations and networks do not.
TOLERANCE = 0.05


@dataclass(frozen=True)
class Golden:
    """What becomes of ``golden_image`` under ``contract``: ``pixels`` (size, size, 3) uint8,
    and the outputs by name, as the package gives them."""

    model: str
    contract: Preprocess
    pixels: Array
    outputs: Mapping[str, Array]

    def to_dict(self) -> dict[str, Any]:
        """For JSON; bytes are base64."""
        kept = {n: x for n, x in self.outputs.items() if x.size <= MAX_ELEMENTS}
        return {
            "version": VERSION,
            "model": self.model,
            "image": _image(golden_image()),
            "contract": self.contract.to_dict(),
            "pixels": _image(self.pixels),
            "normalized": self._normalized(),
            "outputs": {
                n: {"shape": list(x.shape), "values": _short(x)} for n, x in kept.items()
            },
            "left_out": [name for name in self.outputs if name not in kept],
            "tolerance": TOLERANCE,
        }

    def _normalized(self) -> dict[str, Any]:
        """Some of the values (3, size, size) that ``pixels`` become, by flat position."""
        values = np.array(normalize(mx.array(self.pixels), self.contract))
        flat = values.transpose(2, 0, 1).reshape(-1)
        positions = np.linspace(0, flat.size - 1, POSITIONS).astype(int)
        return {"positions": positions.tolist(), "values": _short(flat[positions])}

    def write(self, path: Path) -> None:
        """As the file beside a package."""
        path.write_text(json.dumps(self.to_dict()) + "\n", encoding="utf-8")


def golden_image() -> Array:
    """(HEIGHT, WIDTH, 3) uint8 pixel values: gradients, fine checks, edges; no two channels
    alike. Integers only, so that it is the same everywhere."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    disc = (x - 30) ** 2 + (y - 26) ** 2 < 18**2
    red = 255 * x // (WIDTH - 1)
    green = 255 * y // (HEIGHT - 1)
    blue = np.where((x // 4 + y // 4) % 2, 220, 40)
    image = np.stack([np.where(disc, 250, red), np.where(disc, 120, green), blue], axis=-1)
    return image.astype(np.uint8)


def golden_path(package: Path) -> Path:
    """Where a package's golden image lies."""
    return package.with_suffix(SUFFIX)


def is_golden(path: Path) -> bool:
    """Whether a file is one of these: it holds nobody's work and may be written anew."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and {"version", "image", "contract"} <= found.keys()


def reserve(
    stack: ExitStack, function: Function, packages: Sequence[Path], *, force: bool
) -> dict[int, Path]:
    """Where to write the golden images of packages, by the position of the package that each is
    of: one for formats that share a name, none if more than an image goes in.

    They appear when ``stack`` ends without an error. What lies there and is no golden image is
    replaced only with ``force``. Raises OutputError.
    """
    if not len(function.signature.inputs) == len(function.signature.images) == 1:
        return {}
    positions: dict[Path, int] = {}
    for position, package in enumerate(packages):
        positions.setdefault(golden_path(package), position)
    return {
        position: stack.enter_context(replacing(path, force=force or is_golden(path)))
        for path, position in positions.items()
    }


def golden_of(function: Function, program: Program) -> Golden:
    """Of a package that has just been saved: what the model computes, or the package itself
    where its weights are others."""
    if program.is_compressed or program.optional_inputs:
        return golden_of_package(program)
    return golden_of_function(function)


def golden_of_function(function: Function) -> Golden:
    """With the outputs that MLX computes, in float32."""
    (given,) = function.signature.images
    assert given.contract is not None  # it is an image
    pixels = given.read(golden_image())
    return Golden(function.signature.model, given.contract, pixels, function.computed(pixels))


def golden_of_package(program: Program) -> Golden:
    """With the outputs of the saved package, by what runs on any machine: none, if they depend
    on thresholds, which rounding alone may pass.

    Raises PackageError if it has no preprocessing contract, or takes more than an image.
    """
    if len(program.inputs) != 1 or program.preprocess is None:
        raise PackageError(
            f"{program.path}: has no preprocessing contract of one image, so it can have no "
            "golden image"
        )
    pixels = program.resize_and_crop(golden_image())
    values = {} if program.optional_inputs else program.predict(program.named([pixels]))
    model = program.metadata.get("ondevice.model", program.path.stem)
    arrays = {n: np.asarray(values[n], np.float32) for n in program.arrays if n in values}
    return Golden(model, program.preprocess, pixels, arrays)


def _image(pixels: Array) -> dict[str, Any]:
    """(height, width, 3) uint8 for JSON."""
    height, width, _ = pixels.shape
    return {
        "width": width,
        "height": height,
        "rgb": base64.b64encode(pixels.tobytes()).decode("ascii"),
    }


def _short(values: Array) -> list[float]:
    """All elements, with as many digits as float32 has."""
    return [float(f"{value:.8g}") for value in values.reshape(-1).tolist()]
