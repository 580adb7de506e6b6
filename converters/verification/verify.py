"""Prove that a package computes what the model computes."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.nn as nn
import numpy as np

from ondevice.errors import ConfigError, ImageError, PackageError

from ..backend import backend_of, load_package
from ..graph.graph import Array
from ..program import Program, RunOn
from ..program.options import check_verify
from . import kinds
from .against import agreement
from .baselines import fresh_packages, layer_values
from .deviations import Deviation, deviations
from .faults import notes, problems, spoken_problems
from .metrics import METRICS, Metrics
from .rankings import Ranking
from .reference import Reference, reference_of
from .report import AS_SAVED, Report as Report, Step
from .sets import paired

if TYPE_CHECKING:
    from ondevice.image.preprocess import OnError

# The least values by the package's precision. A float32 package only reorders sums; half
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
    "bfloat16": {"psnr_db": 37.0},  # of models that compute in it; three bits fewer
    "compressed": {"psnr_db": 15.0, "spread_db": 6.0, "top1_agreement": 0.8},
    "compressed, few images": {"psnr_db": 15.0, "spread_db": 1.0, "top1_agreement": 0.7},
}
_COARSER = ("", "float32", "float16", "bfloat16")  # each than the one before
AGREEMENT = 0.998
ENOUGH = 8  # images


def verify(
    model: nn.Module,
    package: str | Path | Program,
    images: Iterable[Any],
    *,
    run_on: RunOn = "reference",
    gates: Mapping[str, float] | None = None,
    baselines: bool = False,
    against: str | Path | Program | None = None,
    on_error: OnError | None = None,
) -> Report:
    """Run ``package`` and ``model`` on the same ``images`` and compare every output.

    For an image model an image is a path, a PIL image or uint8 pixel values; the package's own
    preprocessing contract applies to both sides. Otherwise a sample is an array, or a tuple of
    what each input takes. The model runs in float32 as it is, unfused. ``baselines`` also
    exports the model afresh, in float32 and in the package's precision, so that what fails
    first says why. ``gates`` replace limits of the same name in every step, or are added to
    those of the package. With ``run_on="device"`` (or "auto" on an Apple device) Apple's
    framework runs it too, on each choice of processors, with latency and placement. Of a
    package with several functions each is verified, and steps are named after theirs.
    ``against`` is another package of the model, such as one of another format: each value that
    both compute is compared on the image that is worst for the first.

    An image that cannot be used is left out and given to ``on_error``, by its position and
    the ImageError; without ``on_error``, or if none can be used, an ImageError lists them.

    Raises PackageError, ImageError, ConfigError. A missed gate does not raise: see ``Report``.
    """
    check_verify(
        model=model,
        package=package,
        images=images,
        run_on=run_on,
        gates=gates or {},
        baselines=baselines,
        against=against,
        on_error=on_error,
    )
    package = _opened(package)
    other = None if against is None else _opened(against)
    gates = check_gates(gates or {})
    verified = partial(
        _verified, model, run_on=run_on, gates=gates, baselines=baselines, on_error=on_error
    )
    if len(package.functions) == 1:
        return verified(package, images, other)
    samples, reports = list(images), {}
    for name in package.functions:
        second = other.at(name) if other else None
        reports[name] = verified(package.at(name), samples, second)
    return joined(reports)


def joined(reports: Mapping[str, Report]) -> Report:
    """One report on the functions of a package, whose steps say which they are of."""

    def told(lines: str) -> tuple[str, ...]:
        pairs = ((f, line) for f, r in reports.items() for line in getattr(r, lines))
        return tuple(f"{function}: {line}" for function, line in pairs)

    steps = (
        replace(step, name=f"{step.name}, {function}")
        for function, report in reports.items()
        for step in report.steps
    )
    first = next(iter(reports.values()))
    apart = (r.against for r in reports.values() if r.against and r.against.failures)
    return replace(
        first,
        steps=tuple(steps),
        problems=told("problems"),
        notes=told("notes"),
        against=next(apart, first.against),
    )


def _verified(
    model: nn.Module,
    package: Program,
    images: Iterable[Any],
    other: Program | None,
    *,
    run_on: RunOn,
    gates: Mapping[str, float],
    baselines: bool,
    on_error: OnError | None,
) -> Report:
    """``verify`` of one function."""
    package.results()  # a broken one is refused before any work
    reference = reference_of(model, package)
    devices = _devices(package, reference, run_on)
    with _fresh(model, package, baselines) as fresh:
        tried = [_Tried(f"package {p}", p, fresh[p], reference) for p in fresh]
        tried.append(_Tried(AS_SAVED, package.precision, package, reference, saved=True))
        count = _run(reference, [*tried, *devices], _samples(reference, images, on_error))
        tried += devices
        rounding = reference.rounding
        steps = tuple(_steps(tried, gates, rounding, model, fresh.get("float32")))
        measured = _measured(package, tried[0]) if devices else {}
    saved = next(each for each in tried if each.name == AS_SAVED)
    found = problems(model, reference.signature, package)
    return Report(
        model=reference.name,
        package=package.path.name,
        images=count,
        steps=steps,
        problems=(*package.faults(), *found, *saved.spoken),
        notes=(
            *notes(model, package),
            *package.caveats(),
            *_unjudged(package, saved, count),
            *_ranked(saved),
            *_rounded(package.precision, rounding),
        ),
        versions=versions(package, *([other] if other else [])),
        device=measured,
        against=agreement(package, other, saved.worst) if other else None,
    )


def _opened(package: str | Path | Program) -> Program:
    return package if isinstance(package, Program) else load_package(package)


def _steps(
    tried: Iterable[_Tried],
    gates: Mapping[str, float],
    rounding: str,
    model: nn.Module,
    float32: Program | None,
) -> Iterator[Step]:
    """What each package came to; with the fresh ``float32`` one, where it deviates."""
    for each in tried:
        step = each.step(gates, rounding)
        found = each.deviations(step, model, float32) if float32 else ()
        yield replace(step, deviations=found)


def _run(
    reference: Reference,
    tried: Sequence[_Tried],
    samples: Iterable[tuple[str, tuple[Array, ...]]],
) -> int:
    """Show every sample to all; how many there were. Raises ConfigError if there are none."""
    count = 0
    for name, given in samples:
        wanted, count = reference.compute(given), count + 1
        for each in tried:
            each.add(name, given, wanted)
    if not count:
        raise ConfigError("verify needs at least one image")
    return count


def _devices(package: Program, reference: Reference, run_on: RunOn) -> list[_Tried]:
    """The package on each processor, where that is wanted. Raises PackageError."""
    devices = package.devices() if run_on != "reference" else ()
    if run_on == "device" and not devices:
        raise PackageError(
            f"{package.path}: run_on='device' needs an Apple device; here it is 'reference'"
        )
    return [
        _Tried(d.name, package.precision, d.program, reference, run_on="device", saved=True)
        for d in devices
    ]


def _measured(package: Program, tried: _Tried) -> dict[str, Any]:
    """Latency and placement, on the worst image."""
    return package.measure(package.named(tried.worst))


def _fresh(
    model: nn.Module, package: Program, wanted: bool
) -> AbstractContextManager[dict[str, Program]]:
    return fresh_packages(model, package) if wanted else nullcontext({})


class _Tried:
    """A package on its way to a step."""

    def __init__(
        self,
        name: str,
        precision: str,
        package: Program,
        reference: Reference,
        *,
        run_on: RunOn = "reference",
        saved: bool = False,
    ) -> None:
        self.name, self.precision, self.saved = name, precision, saved
        self.package, self.run_on, self.reference = package, run_on, reference
        self.kinds = {o.name: o.kind for o in reference.signature.outputs}
        self.metrics: dict[str, Metrics] = {}
        self.spoken: list[str] = []  # what is wrong with labels and their scores
        self.agreement: dict[str, list[float]] = {}  # of indices that rank

    def add(
        self, name: str, given: Sequence[Array], wanted: Mapping[str, Array | Ranking]
    ) -> None:
        inputs = {**self.package.named(given), **self.package.keep_all}
        got = self.package.predict(inputs, run_on=self.run_on)
        ours = {name: got[theirs] for name, theirs in self.package.model_outputs.items()}
        arrays, figures = paired(self.kinds, wanted, ours)
        for output, array in wanted.items():
            metrics = self.metrics.setdefault(output, Metrics(output, self.kinds[output]))
            found = arrays[output]
            if isinstance(array, Ranking) and self.kinds[output] == "mask":
                array = array.indices  # class numbers: pixels are compared
            elif isinstance(array, Ranking):
                self.agreement.setdefault(output, []).append(array.agreement(found))
                array, found = array.compared(found)
            metrics.add(name, given, array, found, figures)
        if self.name == AS_SAVED and not self.spoken:
            self.spoken = list(spoken_problems(self.reference.signature, self.package, got))

    @property
    def worst(self) -> Sequence[Array]:
        """What went in where the first output was worst."""
        metrics = next(iter(self.metrics.values()))
        return metrics.worst[2]

    def step(self, gates: Mapping[str, float], rounding: str) -> Step:
        """``gates`` replace limits of the same name; new ones are for the saved package.

        The others are those of the coarser type: the package's, or that of the ``rounding``
        inside of the model.
        """
        count = len(next(iter(self.metrics.values())).rows)
        coarser = max(self.precision, rounding, key=_COARSER.index)
        own = default_gates(self.package, coarser, saved=self.saved, images=count)
        form = "compressed" if self.saved and self.package.is_compressed else coarser
        own = own | kinds.gates(self.kinds.values(), form)
        given = {k: v for k, v in gates.items() if k in own or self.saved}
        return Step(
            name=self.name,
            precision=self.precision,
            run_on=self.run_on,
            package_bytes=self.package.size,
            comparisons=tuple(metrics.result() for metrics in self.metrics.values()),
            gates=own | given,
        )

    def deviations(
        self, step: Step, model: nn.Module, float32: Program
    ) -> tuple[Deviation, ...]:
        """Its values against the float32 package's; that one's against the model's layers."""
        if self.run_on == "device":
            return ()
        worst = (m.worst for m in self.metrics.values() if m.worst[1] == step.worst_image)
        given = next(worst)[2]
        is_first = self.package is float32
        reference = layer_values(model, float32, given) if is_first else float32
        return deviations(self.package, reference, self.package.named(given))


def default_gates(
    package: Program, precision: str, *, saved: bool, images: int
) -> dict[str, float]:
    """The limits for a package of ``precision``, on so many images."""
    if saved and package.is_compressed:
        return GATES["compressed" if images >= ENOUGH else "compressed, few images"]
    gates = GATES.get(precision, GATES["float16"])
    return gates | {"top1_agreement": AGREEMENT} if saved else gates


def check_gates(gates: Mapping[str, float]) -> Mapping[str, float]:
    """Themselves; raises ConfigError for a metric that does not exist, or no finite limit."""
    if endless := [name for name, limit in gates.items() if not math.isfinite(limit)]:
        raise ConfigError(f"gate {', '.join(endless)}: a limit is a finite number")
    if unknown := [name for name in gates if name not in METRICS]:
        raise ConfigError(f"no gate {', '.join(unknown)}; there are {', '.join(METRICS)}")
    return gates


def versions(*packages: Program) -> dict[str, str]:
    """Of all that has a part in the values, and the machine."""
    found = {k: v for p in packages for k, v in backend_of(p.path).versions.items()}
    return found | {"platform": f"{platform.system()} {platform.machine()}"}


def _samples(
    reference: Reference, images: Iterable[Any], on_error: OnError | None
) -> Iterator[tuple[str, tuple[Array, ...]]]:
    """Every sample with a name, as what goes in on both sides."""
    kind = "image" if reference.reading.images else "input"
    unusable: list[str] = []
    count = 0
    for count, sample in enumerate(images, start=1):
        try:
            arrays = reference.reading.read(sample)
        except ImageError as error:
            unusable.append(str(error))
            if on_error:
                on_error(count - 1, error)
        else:
            is_file = isinstance(sample, str | os.PathLike)
            yield Path(sample).name if is_file else f"{kind} {count - 1}", arrays
    if unusable and (not on_error or len(unusable) == count):
        raise ImageError("; ".join(unusable))


def _rounded(precision: str, rounding: str) -> Iterator[str]:
    """That the model's own rounding is more than the package's."""
    if _COARSER.index(rounding) > _COARSER.index(precision):
        yield (
            f"the model computes in {rounding} inside, the package in {precision}: it is held "
            f"to what {rounding} leaves"
        )


def _ranked(saved: _Tried) -> Iterator[str]:
    """Of indices that rank, how many are others than MLX's."""
    for output, shares in saved.agreement.items():
        if (share := float(np.mean(shares))) < 1:
            yield (
                f"{1 - share:.2%} of the indices in {output} are others than the model's: they "
                "are judged by the values that they name"
            )


def _unjudged(package: Program, saved: _Tried, count: int) -> Iterator[str]:
    """What these images cannot show of a compressed package."""
    if not package.is_compressed:
        return
    blind = [m.output for m in saved.metrics.values() if m.result().spread_db is None]
    if blind:
        yield (
            f"{count} images that hardly differ, or one, cannot show whether "
            f"{', '.join(blind)} tells images apart: give {ENOUGH} or more that do"
        )
    elif count < ENOUGH:
        yield f"of {count} images only gross faults can be judged: give {ENOUGH} or more"
