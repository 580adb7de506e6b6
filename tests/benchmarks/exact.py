"""How far a detector's float32 boxes are from exact ones, and those of transformers.

    python -m tests.benchmarks.exact rtdetr_r18vd-640

A decoder of random weights makes much of little: errors of float32 sums that are 1e-5 of the
spread before it are 1e-3 behind it, in any implementation. The same network in float64 says
how much of a difference between two of them is whose. Lines are largest, 99th percentile and
median of errors over the spread; boxes are matched by place.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import ondevice  # noqa: F401  before mlx: on Linux it loads a fast BLAS

# isort: split
import mlx.core as mx
import numpy as np
from mlx.utils import tree_map

from ondevice.nn import detr

from ..parity.dense_cases import DenseCase

Array = np.ndarray[Any, np.dtype[Any]]
Found = tuple[Array, Array]  # (N,) best logits, (N, 4) boxes


def _wide(array: Any) -> Any:
    is_float = isinstance(array, mx.array) and array.dtype == mx.float32
    return array.astype(mx.float64) if is_float else array


def _widened(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments: tree_map(_wide, function(*arguments))


def found(outputs: tuple[mx.array, mx.array]) -> Found:
    """Of the first image."""
    logits, boxes = (np.array(x)[0] for x in outputs)
    return logits.max(axis=-1), boxes


def errors(name: str, wanted: Found, got: Found, spreads: tuple[float, float]) -> str:
    """A line."""
    at = np.abs(wanted[1][:, None] - got[1][None]).max(axis=-1).argmin(axis=1)
    text = f"{name:34}"
    for kind, a, b, spread in zip(("logits", "boxes"), wanted, got, spreads, strict=True):
        apart = np.abs(a - b[at]) / spread
        values = apart.max(), np.quantile(apart, 0.99), np.median(apart)
        text += f"  {kind} " + " ".join(f"{value:.1e}" for value in values)
    return text


def main() -> None:
    """Reads the names of cases, and prints three lines for each."""
    for name in sys.argv[1:]:
        case = DenseCase(name)
        model = case.create()
        ours = found(model.detect(case.input[:1]))
        model.update(tree_map(_wide, model.parameters()))
        tables = {key: _widened(getattr(detr, key)) for key in ("anchors", "sine_positions")}
        with mx.stream(mx.Device(mx.DeviceType.cpu)), patch.multiple(detr, **tables):
            exact = found(model.detect(_wide(case.input[:1])))
        theirs = case.arrays["logits"][0], case.arrays["pred_boxes"][0]
        spreads = tuple(float(case.arrays[f"{key}.std"]) for key in ("logits", "pred_boxes"))
        print(errors(f"{name}: ours, exact", ours, exact, spreads))
        print(errors("transformers, exact", theirs, exact, spreads))
        print(errors("transformers, ours", theirs, ours, spreads))


if __name__ == "__main__":
    main()
