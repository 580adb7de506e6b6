"""Prove that a package computes what the model computes."""

from __future__ import annotations

import math
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from ondevice.config import Preprocess
from ondevice.errors import ConfigError, ImageError
from ondevice.image.preprocess import resize_and_crop
from ondevice.nn.layers import ImageModel
from ondevice.weights.output import folder_bytes as folder_bytes

from ..graph.graph import Array
from ..graph.passes.layout import NCHW
from ..interface import OUTPUTS, Interface, array_interface, image_interface
from .baselines import declared, example_inputs, fresh_packages, layer_values, output_kinds
from .deviations import Deviation, deviations
from .faults import is_compressed, notes, problems, spoken_problems
from .metrics import MEASURES, Meter
from .report import AS_SAVED, Report as Report, Step

if TYPE_CHECKING:
    from ondevice.image.preprocess import OnError

    from ..coreml.loaded import Backend, Package

# Least figures by the package's precision. A float32 package only reorders sums; half
# precision rounds every stored value to 11 bits, which deep nets add up to some -60 dB.
# Compression loses far more, and says by its error alone little of faults: its error is held
# to the distance between images, its weights to the model's (``stored_weights``). On the
# shipped models with 24 photos, 4-bit palettes without calibration have a spread of 8 dB and
# keep 0.83 of the classes (8 bits: 30 dB, all); swapped channels or a wrong normalization have
# 5 dB at most, one output for all images 0, outputs of other images less. On test patterns,
# which are few and like nothing a model was trained on, those 4 bits have 2 dB.
GATES: dict[str, dict[str, float]] = {
    "float32": {"relative_error": 1e-5},
    "float16": {"psnr_db": 55.0},
    "compressed": {"psnr_db": 15.0, "spread_db": 6.0, "top1_agreement": 0.8},
    "compressed, few images": {"psnr_db": 15.0, "spread_db": 1.0, "top1_agreement": 0.7},
}
AGREEMENT = 0.998
ENOUGH = 8  # images


def verify(
    model: nn.Module,
    package: str | Path | Package,
    images: Iterable[Any],
    *,
    backend: Backend = "reference",
    gates: Mapping[str, float] | None = None,
    ladder: bool = False,
    on_error: OnError | None = None,
) -> Report:
    """Run ``package`` and ``model`` on the same ``images`` and compare every output.

    For a model of ``ondevice.create_model`` an image is a path, a PIL image or uint8 levels;
    the package's own preprocessing contract applies to both sides. For any other module it
    is an array, or a tuple of them, as the module takes it. The model runs in float32 as it
    is, unfused. ``ladder`` also exports the model afresh, in float32 and in the package's
    precision, so that what fails first says why. ``gates`` replace limits of the same name in
    every step, or are added to those of the package. With ``backend`` "coreml" (or "auto" on
    macOS) Core ML runs it too, on each choice of compute units, with latency and placement.

    A picture that cannot be used is left out and given to ``on_error``, by its position and
    the ImageError; without ``on_error``, or if none can be used, an ImageError lists them.

    Raises PackageError, ImageError, ConfigError. A missed gate does not raise: see ``Report``.
    """
    from ..coreml.loaded import Package, load_package

    package = package if isinstance(package, Package) else load_package(package)
    gates = check_gates(gates or {})
    devices = _devices(package, backend)
    package.plan()  # a broken one is refused before any work
    reference = _reference(model, package)
    _check_shapes(reference, package)
    with _fresh(model, package, ladder) as fresh:
        rungs = [_Rung(f"package {p}", p, fresh[p]) for p in fresh]
        rungs.append(_Rung(AS_SAVED, _precision(package), package, saved=True))
        rungs += devices
        count = 0
        for name, given in _samples(model, package, images, on_error):
            wanted, count = compute(reference, given), count + 1
            for rung in rungs:
                rung.add(name, given, wanted)
        if not count:
            raise ConfigError("verify needs at least one image")
        steps = [rung.step(gates) for rung in rungs]
        if fresh:
            pairs = zip(steps, rungs, strict=True)
            steps = [replace(s, trail=r.trail(s, model, fresh["float32"])) for s, r in pairs]
        figures = _measured(package, rungs[0]) if devices else {}
    saved = next(rung for rung in rungs if rung.name == AS_SAVED)
    return Report(
        model=_model_name(model),
        package=package.path.name,
        images=count,
        steps=tuple(steps),
        problems=(*problems(model, package), *saved.spoken),
        notes=(*notes(model, package), *_unjudged(package, saved, count)),
        versions=versions(),
        device=figures,
    )


def _devices(package: Package, backend: Backend) -> list[_Rung]:
    """The package on each compute unit, where Core ML is wanted. Raises PackageError."""
    if backend == "reference" or (backend == "auto" and sys.platform != "darwin"):
        return []
    from ..coreml.device import UNITS, on_unit, require_macos

    require_macos()
    precision = _precision(package)
    return [
        _Rung(f"Core ML {u}", precision, on_unit(package, u), "coreml", saved=True)
        for u in UNITS
    ]


def _measured(package: Package, rung: _Rung) -> dict[str, Any]:
    """Latency and placement, on the worst image."""
    from ..coreml.device import measure

    meter = next(iter(rung.meters.values()))
    return measure(package, rung.named(meter.worst[2])).to_dict()


def _fresh(
    model: nn.Module, package: Package, ladder: bool
) -> AbstractContextManager[dict[str, Package]]:
    return fresh_packages(model, package) if ladder else nullcontext({})


class _Rung:
    """A package on its way to a step."""

    def __init__(
        self,
        name: str,
        precision: str,
        package: Package,
        backend: Backend = "reference",
        *,
        saved: bool = False,
    ) -> None:
        self.name, self.precision, self.saved = name, precision, saved
        self.package, self.backend = package, backend
        self.meters: dict[str, Meter] = {}
        self.spoken: list[str] = []  # what is wrong with labels and their scores

    def add(self, name: str, given: Sequence[Array], wanted: Mapping[str, Array]) -> None:
        got = self.package.predict(self.named(given), backend=self.backend)
        for output, array in wanted.items():
            meter = self.meters.setdefault(output, Meter(output))
            meter.add(name, given, array, np.asarray(got[output]))
        if self.saved and not self.spoken:
            self.spoken = list(spoken_problems(self.package, got))

    def named(self, given: Sequence[Array]) -> dict[str, Array]:
        return dict(zip(self.package.inputs, given, strict=True))

    def step(self, gates: Mapping[str, float]) -> Step:
        """``gates`` replace limits of the same name; new ones are for the saved package."""
        count = len(next(iter(self.meters.values())).rows)
        own = default_gates(self.package, self.precision, saved=self.saved, images=count)
        given = {k: v for k, v in gates.items() if k in own or self.saved}
        return Step(
            name=self.name,
            precision=self.precision,
            backend=self.backend,
            package_bytes=folder_bytes(self.package.path),
            comparisons=tuple(meter.result() for meter in self.meters.values()),
            gates=own | given,
        )

    def trail(self, step: Step, model: nn.Module, float32: Package) -> tuple[Deviation, ...]:
        """Its values against the float32 package's; that one's against the model's layers."""
        if self.backend == "coreml":
            return ()
        given = next(m.worst[2] for m in self.meters.values() if m.worst[1] == step.worst_image)
        is_first = self.package is float32
        reference = layer_values(model, float32, given) if is_first else float32
        return deviations(self.package, reference, self.named(given))


def default_gates(
    package: Package, precision: str, *, saved: bool, images: int
) -> dict[str, float]:
    if saved and is_compressed(package):
        return GATES["compressed" if images >= ENOUGH else "compressed, few images"]
    gates = GATES.get(precision, GATES["float16"])
    return gates | {"top1_agreement": AGREEMENT} if saved else gates


def check_gates(gates: Mapping[str, float]) -> Mapping[str, float]:
    """Themselves; raises ConfigError for a metric that does not exist, or no finite limit."""
    if endless := [name for name, limit in gates.items() if not math.isfinite(limit)]:
        raise ConfigError(f"gate {', '.join(endless)}: a limit is a finite number")
    if unknown := [name for name in gates if name not in MEASURES]:
        raise ConfigError(f"no gate {', '.join(unknown)}; there are {', '.join(MEASURES)}")
    return gates


def versions() -> dict[str, str]:
    names = ("ondevice", "mlx", "coremltools", "numpy")
    system = f"{platform.system()} {platform.machine()}"
    found = {name: version(name) for name in names}
    return found | {"python": platform.python_version(), "platform": system}


def compute(reference: Interface, given: Sequence[Array]) -> dict[str, Array]:
    """The model's outputs by name, laid out as the package has them."""
    arrays = [mx.array(x) for x in given]
    results = reference.fn(*(x[None] if reference.picture else x for x in arrays))
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
    if not isinstance(model, ImageModel):
        return array_interface(model, example_inputs(package), output_names=declared(package))
    kinds = output_kinds(package)
    if foreign := set(kinds) - OUTPUTS.keys():
        raise ConfigError(
            f"{package.path} gives {', '.join(sorted(foreign))}, which no model here gives; "
            f"there are {', '.join(OUTPUTS)}"
        )
    if not declared(package):
        raise ConfigError(f"{package.path} gives no numbers to compare")
    whole = image_interface(model, outputs=kinds, size=_size(model, package), fused=False)
    if missing := set(declared(package)) - set(whole.output_names):
        listed = ", ".join(sorted(missing))
        raise ConfigError(f"{package.path} gives {listed}, which {model.info.name} does not")
    return whole


def _size(model: ImageModel, package: Package) -> int | None:
    """The pixels of the one picture that goes in; raises ConfigError if that is not so."""
    inputs = tuple(map(package.as_picture, package.inputs.values()))
    if [feature.kind for feature in inputs] != ["image"]:
        given = ", ".join(f"{f.name} ({f.kind})" for f in inputs) or "nothing"
        raise ConfigError(f"{package.path} takes {given}; {model.info.name} takes one picture")
    size = package.preprocess.size if package.preprocess else None
    if size is not None and inputs[0].shape != (size, size):
        listed = " x ".join(map(str, inputs[0].shape))
        raise ConfigError(
            f"{package.path} takes a picture of {listed} pixels; its preprocessing makes {size}"
        )
    return size


def _check_shapes(reference: Interface, package: Package) -> None:
    """Raises ConfigError for an output that has not the model's shape."""
    given = reference.inputs
    results = reference.fn(*given)  # never computed
    results = results if isinstance(results, list | tuple) else [results]
    wrong = []
    for name, value in zip(reference.output_names, results, strict=False):
        shape = tuple(value.shape)
        if reference.orders.get(name) == NCHW:
            shape = (shape[0], shape[3], *shape[1:3])
        declared_as = package.outputs[name].shape if name in package.outputs else ()
        if declared_as and declared_as != shape:
            wrong.append(f"{name} is {list(declared_as)}; the model gives {list(shape)}")
    if wrong:
        raise ConfigError(
            f"{package.path}: {'; '.join(wrong)}: it was made from another model, such as a "
            "fine-tuned one: name that with --model FOLDER"
        )


def _samples(
    model: nn.Module, package: Package, images: Iterable[Any], on_error: OnError | None
) -> Iterator[tuple[str, tuple[Array, ...]]]:
    """Every image with a name, as what goes in on both sides."""
    if not isinstance(model, ImageModel):
        for i, image in enumerate(images):
            arrays = image if isinstance(image, tuple | list) else (image,)
            yield f"input {i}", _as_arrays(arrays, package)
        return
    spec, unusable = package.preprocess or model.info.preprocess, []
    for i, image in enumerate(images):
        name = Path(image).name if isinstance(image, str | os.PathLike) else f"image {i}"
        try:
            levels = _levels(image, spec)
        except ImageError as error:
            unusable.append(str(error))
            if on_error:
                on_error(i, error)
        else:
            yield name, (levels,)
    if unusable and (not on_error or len(unusable) == i + 1):
        raise ImageError("; ".join(unusable))


def _as_arrays(given: Sequence[Any], package: Package) -> tuple[Array, ...]:
    """What a module takes. Raises ConfigError for an image, a text, or another shape."""
    arrays = tuple(np.array(x) if hasattr(x, "shape") else np.empty(0, object) for x in given)
    wanted = [f.shape for f in package.inputs.values()]
    if any(a.dtype.kind in "OUS" for a in arrays) or [a.shape for a in arrays] != wanted:
        takes = ", ".join(f"{n}: {f.dtype} {list(f.shape)}" for n, f in package.inputs.items())
        got = ", ".join(f"{type(x).__name__} {list(getattr(x, 'shape', ()))}" for x in given)
        raise ConfigError(f"{package.path} takes arrays ({takes}), no images; given {got}")
    return arrays


def _levels(image: Any, spec: Preprocess) -> Array:
    ready = isinstance(image, np.ndarray) and image.shape == (spec.size, spec.size, 3)
    return image if ready else resize_and_crop(image, spec)


def _precision(package: Package) -> str:
    return package.metadata.get("ondevice.precision", "float16")


def _model_name(model: nn.Module) -> str:
    return model.info.name if isinstance(model, ImageModel) else type(model).__name__


def _unjudged(package: Package, saved: _Rung, count: int) -> Iterator[str]:
    """What these images cannot show of a compressed package."""
    if not is_compressed(package):
        return
    blind = [m.output for m in saved.meters.values() if m.result().spread_db is None]
    if blind:
        yield (
            f"{count} images that hardly differ, or one, cannot show whether "
            f"{', '.join(blind)} tells images apart: give {ENOUGH} or more that do"
        )
    elif count < ENOUGH:
        yield f"of {count} images only gross faults can be judged: give {ENOUGH} or more"
