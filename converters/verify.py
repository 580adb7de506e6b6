"""Prove that a package computes what the model computes."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ondevice.config import Preprocess
from ondevice.errors import ConfigError, GateError
from ondevice.layers import ImageModel
from ondevice.preprocess import resize_and_crop

from .graph import Array
from .interface import Interface, array_interface, image_interface
from .passes.layout import NCHW

if TYPE_CHECKING:
    from .coreml.loaded import Backend, Package

# Least figures by the package's precision. A float32 package only reorders sums; half
# precision rounds every stored value to 11 bits, which deep nets add up to some -60 dB.
GATES: dict[str, dict[str, float]] = {
    "float32": {"relative_error": 1e-5},
    "float16": {"psnr_db": 55.0, "top1_agreement": 0.998},
}
_UPPER = frozenset({"relative_error", "max_error"})  # limits from above; the others from below


@dataclass(frozen=True)
class Comparison:
    """One output of a package against the model's, over all images.

    ``relative_error`` is the largest difference over the largest value, ``psnr_db`` the same
    value over the root mean square difference. Agreement is a share, for class scores only.
    """

    output: str
    cosine: float
    psnr_db: float
    max_error: float
    relative_error: float
    finite: bool
    worst_image: str
    top1_agreement: float | None = None
    top5_agreement: float | None = None

    def failures(self, gates: Mapping[str, float]) -> list[str]:
        """The gates that these figures miss, in words."""
        missed = [] if self.finite else [f"{self.output} has NaN or infinite values"]
        for name, limit in gates.items():
            value = getattr(self, name)
            if value is None:
                continue
            inside = value <= limit if name in _UPPER else value >= limit
            if not inside:
                sign = ">" if name in _UPPER else "<"
                missed.append(f"{self.output} {name} {value:.4g} {sign} {limit:g}")
        return missed


@dataclass(frozen=True)
class Report:
    """What ``verify`` found: numbers first, then a verdict."""

    model: str
    package: str
    backend: str
    precision: str
    images: int
    package_bytes: int
    comparisons: tuple[Comparison, ...]
    gates: Mapping[str, float]
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def failures(self) -> list[str]:
        return [line for c in self.comparisons for line in c.failures(self.gates)]

    @property
    def passed(self) -> bool:
        return not self.failures

    def require(self) -> Report:
        """Itself; raises GateError that lists every gate missed."""
        if self.failures:
            raise GateError(f"{self.package}: {'; '.join(self.failures)}")
        return self

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"passed": self.passed, "failures": self.failures}


def verify(
    model: nn.Module,
    package: str | Path | Package,
    images: Iterable[Any],
    *,
    backend: Backend = "reference",
    gates: Mapping[str, float] | None = None,
) -> Report:
    """Run ``package`` and ``model`` on the same ``images`` and compare every output.

    For a model of ``ondevice.create_model`` an image is a path, a PIL image or uint8 levels;
    the package's own preprocessing contract applies to both sides. For any other module it
    is an array, or a tuple of them, as the module takes it. The model runs in float32 as it
    is, unfused; ``gates`` replace the default ones of the package's precision.

    Raises PackageError, ImageError, ConfigError. A missed gate does not raise: see ``Report``.
    """
    from .coreml.loaded import Package, load_package

    package = package if isinstance(package, Package) else load_package(package)
    samples = list(_samples(model, package, images))
    if not samples:
        raise ConfigError("verify needs at least one image")
    reference = _reference(model, package)
    meters = {n: _Meter(n) for n in reference.output_names if n != "probabilities"}
    for name, given in samples:
        wanted = compute(reference, given)
        got = package.predict(dict(zip(package.inputs, given, strict=True)), backend=backend)
        for output, meter in meters.items():
            meter.add(name, wanted[output], np.asarray(got[output]))
    precision = package.metadata.get("ondevice.precision", "float16")
    return Report(
        model=_model_name(model),
        package=package.path.name,
        backend=backend,
        precision=precision,
        images=len(samples),
        package_bytes=folder_bytes(package.path),
        comparisons=tuple(m.result() for m in meters.values()),
        gates=GATES[precision] if gates is None else gates,
        versions={"python": platform.python_version(), "platform": platform.system()},
        notes=tuple(_notes(model, package)),
    )


def folder_bytes(path: Path) -> int:
    """The size of a package: all files in it."""
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file())


def compute(reference: Interface, given: Sequence[Array]) -> dict[str, Array]:
    """The model's outputs by name, laid out as the package has them."""
    arrays = [mx.array(x) for x in given]
    results = reference.fn(*(x[None] if reference.image else x for x in arrays))
    results = results if isinstance(results, list | tuple) else [results]
    return {
        name: _laid(np.array(value.astype(mx.float32)), reference.orders.get(name))
        for name, value in zip(reference.output_names, results, strict=True)
        if name != "probabilities"
    }


def _laid(value: Array, order: Any) -> Array:
    return value.transpose(0, 3, 1, 2) if order == NCHW else value


def _reference(model: nn.Module, package: Package) -> Interface:
    """What to compare with: the outputs that the package declares, from the unfused model."""
    declared = [name for name in package.outputs if not name.startswith("classLabel")]
    if not isinstance(model, ImageModel):
        zeros = [mx.zeros(f.shape) for f in package.inputs.values()]
        return array_interface(model, zeros, output_names=declared)
    kinds = list(dict.fromkeys(name.split("_")[0] for name in declared))
    if kinds == ["probabilities"]:
        kinds = ["logits"]
    size = package.preprocess.size if package.preprocess else None
    whole = image_interface(model, outputs=kinds, size=size, fused=False)
    if missing := set(declared) - set(whole.output_names):
        raise ConfigError(f"{package.path} has outputs no model of ours has: {sorted(missing)}")
    return whole


def _samples(
    model: nn.Module, package: Package, images: Iterable[Any]
) -> Iterable[tuple[str, tuple[Array, ...]]]:
    """Every image with a name, as what goes in on both sides."""
    for i, image in enumerate(images):
        if isinstance(model, ImageModel):
            name = Path(image).name if isinstance(image, str | Path) else f"image {i}"
            spec = package.preprocess or model.info.preprocess
            yield name, (_levels(image, spec),)
        else:
            arrays = image if isinstance(image, tuple | list) else (image,)
            yield f"input {i}", tuple(np.array(a) for a in arrays)


def _levels(image: Any, spec: Preprocess) -> Array:
    ready = isinstance(image, np.ndarray) and image.shape == (spec.size, spec.size, 3)
    return image if ready else resize_and_crop(image, spec)


def _model_name(model: nn.Module) -> str:
    return model.info.name if isinstance(model, ImageModel) else type(model).__name__


def _notes(model: nn.Module, package: Package) -> Iterable[str]:
    from .export import weights_hash

    said = package.metadata.get("ondevice.weights_sha256")
    if said and isinstance(model, ImageModel) and said != weights_hash(model):
        yield "the package was made from other weights than this model has"


class _Meter:
    """Adds up the figures of one output over images."""

    def __init__(self, output: str) -> None:
        self.output = output
        self.count = 0
        self.squares = self.peak = self.error = 0.0
        self.dot = self.own = self.other = 0.0
        self.worst = ("", -1.0)
        self.top1: list[bool] = []
        self.top5: list[float] = []
        self.finite = True

    def add(self, image: str, wanted: Array, got: Array) -> None:
        if wanted.shape != got.shape:
            raise ConfigError(
                f"{self.output} is {list(got.shape)}; the model gives {list(wanted.shape)}"
            )
        a, b = wanted.astype(np.float64).ravel(), got.astype(np.float64).ravel()
        if not np.isfinite(b).all():
            self.finite = False
            b = np.nan_to_num(b)
        difference = np.abs(a - b)
        self.count += a.size
        self.squares += float(difference @ difference)
        self.peak = max(self.peak, float(np.abs(a).max()))
        self.error = max(self.error, float(difference.max()))
        self.dot += float(a @ b)
        self.own += float(a @ a)
        self.other += float(b @ b)
        self.worst = max(self.worst, (image, float(difference.max())), key=lambda pair: pair[1])
        if self.output == "logits":
            k = min(5, a.size)
            best, found = np.argsort(-a)[:k], np.argsort(-b)[:k]
            self.top1.append(bool(best[0] == found[0]))
            self.top5.append(len(set(best) & set(found)) / k)

    def result(self) -> Comparison:
        rms = (self.squares / self.count) ** 0.5
        peak = self.peak or 1.0
        return Comparison(
            output=self.output,
            cosine=self.dot / ((self.own * self.other) ** 0.5 or 1.0),
            psnr_db=float(20 * np.log10(peak / rms)) if rms else float("inf"),
            max_error=self.error,
            relative_error=self.error / peak,
            finite=self.finite,
            worst_image=self.worst[0],
            top1_agreement=float(np.mean(self.top1)) if self.top1 else None,
            top5_agreement=float(np.mean(self.top5)) if self.top5 else None,
        )
