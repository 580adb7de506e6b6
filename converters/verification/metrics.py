"""How far apart two arrays are: over all images, and for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ondevice.errors import ConfigError
from ondevice.signature.decode import decisions

from ..graph.graph import Array
from .kinds import OF_KINDS, is_judged, means, measured

EXACT = 200.0  # dB: what equal arrays are given, beyond any float32 rounding
NOT_FINITE = "has or lacks NaN or infinite values, unlike MLX"
NOTHING_FINITE = "has NaN and infinite values alone, in MLX too: there is nothing to compare"
ALIKE = 0.005  # of their mean square: images that differ by less cannot be told apart
UPPER = frozenset(
    {"relative_error", "max_error", "abs_rel"}
)  # limits from above; others from below


@dataclass(frozen=True)
class ImageMetrics:
    """One output of one image."""

    image: str
    psnr_db: float
    max_error: float
    top1_agrees: bool | None = None


@dataclass(frozen=True)
class Comparison:
    """One output of a package against the model's, over all images.

    ``relative_error`` is the largest difference over the largest value, ``psnr_db`` the same
    value over the root mean square difference (at most 200), ``spread_db`` the mean square
    that images differ by from their mean over the mean square difference: 0 if the package
    gave the same for every image, less if it gave another image's. It is None where that
    cannot be judged, of one image or of images that hardly differ. ``finite``: NaN and
    infinite values are only where the model has the same; ``comparable``: there are others.
    Agreement is a share, for class scores only. ``of_kind`` is what is measured of outputs of
    a ``kind``: see ``kinds``.
    """

    output: str
    cosine: float
    psnr_db: float
    max_error: float
    relative_error: float
    finite: bool
    comparable: bool
    worst_image: str
    spread_db: float | None = None
    top1_agreement: float | None = None
    top5_agreement: float | None = None
    kind: str = ""
    of_kind: Mapping[str, float] = field(default_factory=dict)
    per_image: tuple[ImageMetrics, ...] = ()

    def failures(self, gates: Mapping[str, float]) -> list[str]:
        """The gates that these metrics miss, in words."""
        missed = [] if self.finite else [f"{self.output} {NOT_FINITE}"]
        if not self.comparable:
            return [*missed, f"{self.output} {NOTHING_FINITE}"]
        for name, limit in gates.items():
            value = self.of_kind.get(name, getattr(self, name, None))
            if value is None or not is_judged(self.kind, self.of_kind, name):
                continue
            inside = value <= limit if name in UPPER else value >= limit
            if not inside:
                sign = ">" if name in UPPER else "<"
                missed.append(f"{self.output} {name} {value:.4g} {sign} {limit:g}")
        return missed


# What a gate may limit.
METRICS = (
    *"psnr_db spread_db relative_error max_error cosine top1_agreement top5_agreement".split(),
    *OF_KINDS,
)


def psnr(peak: float, rms: float) -> float:
    """Peak over root mean square error in dB, from 0 to ``EXACT``."""
    if not rms:
        return EXACT
    return float(np.clip(20 * np.log10((peak or 1.0) / rms), 0, EXACT))


def compare(wanted: Array, got: Array) -> float:
    """The PSNR of one array in dB; 0 if values are NaN or infinite that should not be."""
    a, b = wanted.astype(np.float64).ravel(), got.astype(np.float64).ravel()
    known = np.isfinite(a)
    a, b = a[known], b[known]
    if not a.size:
        return EXACT
    if not np.isfinite(b).all():
        return 0.0
    return psnr(float(np.abs(a).max()), float(np.sqrt(np.mean((a - b) ** 2))))


def _shared(a: Array, b: Array) -> Array:
    """Where both are NaN or the same infinity, as masked scores are."""
    found: Array = (np.isnan(a) & np.isnan(b)) | (np.isinf(a) & (a == b))
    return found


class Metrics:
    """Adds up the figures of one output over images, and remembers the worst."""

    def __init__(self, output: str, kind: str = "") -> None:
        self.output, self.kind = output, kind
        self.of_kind: list[Mapping[str, float]] = []  # of each image
        self.count = self.compared = 0
        self.squares = self.peak = self.error = 0.0
        self.dot = self.own = self.other = 0.0
        self.total: Array | float = 0.0  # the sum of what the model gives
        self.worst: tuple[float, str, Any] = (np.inf, "", None)  # PSNR, name, what went in
        self.finite = True
        self.top5: list[float] = []
        self.rows: list[ImageMetrics] = []

    def add(
        self,
        image: str,
        given: Any,
        wanted: Array,
        got: Array,
        figures: Mapping[str, float] | None = None,
    ) -> None:
        """One more sample: both sides' output as arrays of one shape, and ``figures`` of all
        outputs together."""
        if wanted.shape != got.shape:
            raise ConfigError(
                f"{self.output} is {list(got.shape)}; the model gives {list(wanted.shape)}"
            )
        a, b = wanted.astype(np.float64).ravel(), got.astype(np.float64).ravel()
        agrees = self._agreement(a, b) if self.output == "logits" else None
        shared = _shared(a, b)
        self.compared += a.size - int(shared.sum())
        if shared.any():
            a, b = np.where(shared, 0.0, a), np.where(shared, 0.0, b)
        finite = bool(np.isfinite(a).all() and np.isfinite(b).all())
        self.finite &= finite
        if not finite:
            a, b = (np.nan_to_num(x, posinf=0, neginf=0) for x in (a, b))
        difference = np.abs(a - b)
        squares, peak = float(difference @ difference), float(np.abs(a).max(initial=0))
        largest = float(difference.max(initial=0))
        self.count += a.size
        self.squares += squares
        self.peak, self.error = max(self.peak, peak), max(self.error, largest)
        self.total = self.total + a
        self.dot += float(a @ b)
        self.own += float(a @ a)
        self.other += float(b @ b)
        self.of_kind.append(measured(self.kind, wanted, got, figures or {}))
        level = psnr(peak, (squares / max(a.size, 1)) ** 0.5) if finite else 0.0
        if level < self.worst[0]:
            self.worst = (level, image, given)
        self.rows.append(ImageMetrics(image, level, largest, agrees))

    def _agreement(self, a: Array, b: Array) -> bool:
        k = min(5, a.size)
        best, found = np.argsort(-a)[:k], np.argsort(-b)[:k]
        self.top5.append(len(set(best) & set(found)) / k)
        return bool(decisions(a) == decisions(b))

    def _spread_db(self) -> float | None:
        images = len(self.rows)
        between = self.own - float(np.square(self.total).sum()) / images
        if images < 2 or between < ALIKE * self.own:
            return None
        return float(10 * np.log10(between / self.squares)) if self.squares else EXACT

    def result(self) -> Comparison:
        """The comparison over all samples."""
        agreed = [row.top1_agrees for row in self.rows if row.top1_agrees is not None]
        return Comparison(
            output=self.output,
            cosine=float(self.dot / ((self.own * self.other) ** 0.5 or 1.0)),
            psnr_db=psnr(self.peak, (self.squares / max(self.count, 1)) ** 0.5),
            max_error=self.error,
            relative_error=self.error / (self.peak or 1.0),
            finite=self.finite,
            comparable=bool(self.compared) or not self.count,
            worst_image=self.worst[1],
            spread_db=self._spread_db(),
            top1_agreement=float(np.mean(agreed)) if agreed else None,
            top5_agreement=float(np.mean(self.top5)) if self.top5 else None,
            kind=self.kind,
            of_kind=means(self.of_kind),
            per_image=tuple(self.rows),
        )
