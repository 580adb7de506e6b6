"""What a model's outputs mean to a person."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlx.core as mx

from ..config.labels import check_labels
from ..errors import ConfigError

if TYPE_CHECKING:
    from ..config import Preprocess
    from . import Array, Output

TOP = 5  # classes


@dataclass(frozen=True)
class Prediction:
    """One class with its probability."""

    label: str
    score: float
    index: int


def probabilities(logits: mx.array) -> mx.array:
    """(B, classes) softmax of (B, classes); of one logit (B, 2): 1 - sigmoid, sigmoid."""
    if logits.shape[-1] > 1:
        return mx.softmax(logits, axis=-1)
    return mx.concatenate([mx.sigmoid(-logits), mx.sigmoid(logits)], axis=-1)


def decisions(logits: Any) -> Any:
    """(B,) class of each row of (B, classes) in NumPy; of one logit, whether it is positive."""
    return logits.argmax(axis=-1) if logits.shape[-1] > 1 else logits[..., 0] > 0


def top_predictions(
    logits: mx.array, labels: tuple[str, ...], top_k: int
) -> list[list[Prediction]]:
    """The ``top_k`` most likely classes of each row of logits (B, classes), most likely first.

    Raises ConfigError if there are labels, but not one for each class.
    """
    return top_scores(probabilities(logits.astype(mx.float32)), labels, top_k)


def top_scores(scores: mx.array, labels: tuple[str, ...], top_k: int) -> list[list[Prediction]]:
    """The ``top_k`` largest of each row of probabilities (B, classes), the largest first.

    Raises ConfigError if there are labels, but not one for each class.
    """
    check_labels(labels, scores.shape[-1], "the model's scores")
    order = mx.argsort(-scores, axis=-1)[:, :top_k]
    best = mx.take_along_axis(scores, order, axis=-1)
    indices: Any = order.tolist()
    values: Any = best.tolist()
    return [
        [
            Prediction(labels[i] if labels else f"class {i}", score, i)
            for i, score in zip(*row, strict=True)
        ]
        for row in zip(indices, values, strict=True)
    ]


@dataclass(frozen=True)
class Detection:
    """An object: its class, how sure that is, and x, y (of its corner), width and height."""

    label: str
    score: float
    index: int
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Frame:
    """A photo of ``size`` (width, height), and the part of it that the model saw, in its
    pixels: x, y, width, height."""

    size: tuple[int, int]
    window: tuple[float, float, float, float]

    @classmethod
    def of(cls, size: tuple[int, int], spec: Preprocess) -> Frame:
        """That of a photo which was prepared by ``spec``."""
        from ..image.preprocess import window

        return cls(size, window(size, spec))

    def box(self, centred: Array) -> tuple[float, float, float, float]:
        """Centre, width and height as parts of what the model saw, as a corner and a size in
        pixels, cut off at the photo's edges."""
        left, top, width, height = self.window
        x, y, w, h = (float(value) for value in centred)
        x0, x1 = (_clip(left + width * (x + s * w / 2), self.size[0]) for s in (-1, 1))
        y0, y1 = (_clip(top + height * (y + s * h / 2), self.size[1]) for s in (-1, 1))
        return x0, y0, x1 - x0, y1 - y0

    def map(self, values: Array, *, smooth: bool) -> Array:
        """(H, W) values of what the model saw as (height, width) of the photo; at its edges,
        where the model saw nothing, the nearest."""
        import numpy as np

        (x, y, width, height), (across, down) = self.window, self.size
        rows = (np.arange(down) + 0.5 - y) * (values.shape[0] / height) - 0.5
        columns = (np.arange(across) + 0.5 - x) * (values.shape[1] / width) - 0.5
        if smooth:
            return _between(_between(values, rows).T, columns).T
        near = [
            np.clip(np.rint(at), 0, n - 1).astype(int)
            for at, n in zip((rows, columns), values.shape, strict=True)
        ]
        return values[np.ix_(*near)]


def _clip(value: float, length: int) -> float:
    return min(max(value, 0.0), float(length))


def _between(values: Array, at: Array) -> Array:
    """(n, m) rows at places between them, linearly."""
    import numpy as np

    at = np.clip(at, 0, len(values) - 1)
    low = np.floor(at).astype(int)
    part = (at - low).astype(values.dtype)[:, None]
    high = np.minimum(low + 1, len(values) - 1)
    return values[low] * (1 - part) + values[high] * part


def in_pixels(boxes: Array, frame: Frame) -> Array:
    """(N, 4) centres and sizes, as parts of what the model saw, to corners and sizes in the
    photo's pixels, float64."""
    import numpy as np

    return np.array([frame.box(box) for box in boxes], np.float64).reshape(-1, 4)


DROPPED = -1.0  # the score of a box that a surer one stands for


def suppressed(boxes: Array, scores: Array, max_overlap: float) -> Array:
    """(N, classes) scores of (N, 4) boxes, corner and size, ``DROPPED`` where a surer box of
    that class stays whose intersection over union with this one is above ``max_overlap``.

    Of equally sure ones the first stays.
    """
    import numpy as np

    from ..image.boxes import iou

    if max_overlap >= 1:
        return scores
    apart = iou(boxes[:, None], boxes) <= max_overlap
    kept = np.full_like(scores, DROPPED)
    for number, column in enumerate(scores.T):
        is_free = np.ones(len(boxes), bool)
        for i in np.argsort(-column, kind="stable").tolist():
            if is_free[i]:
                kept[i, number] = column[i]
                is_free &= apart[i]
    return kept


def detections(
    boxes: Array,
    scores: Array,
    labels: tuple[str, ...],
    threshold: float,
    frame: Frame,
    max_overlap: float = 1.0,
) -> list[Detection]:
    """The objects of one image, the surest first: (N, 4) boxes with (N, classes) scores.

    Each class of a box that reaches ``threshold`` is an object, unless a surer one of that
    class overlaps it more than ``max_overlap``.
    """
    import numpy as np

    is_sure = (scores >= threshold).any(axis=1)
    placed = in_pixels(boxes[is_sure], frame)
    scores = suppressed(placed, scores[is_sure], max_overlap)
    queries, classes = np.nonzero(scores >= threshold)
    order = np.argsort(-scores[queries, classes], kind="stable")
    return [
        Detection(
            labels[c] if labels else f"class {c}", float(scores[q, c]), int(c), (x, y, w, h)
        )
        for q, c in zip(queries[order], classes[order], strict=True)
        for x, y, w, h in [placed[q].tolist()]
    ]


def decode(
    outputs: Sequence[Output],
    values: Mapping[str, Any],
    frames: Sequence[Frame],
    threshold: float,
) -> dict[str, Any]:
    """All outputs as a person reads them; ``frames`` are the photos, if they are known."""
    arrays = {o.name: mx.array(values[o.name]).astype(mx.float32) for o in outputs}
    images = {len(arrays[o.name]) for o in outputs if o.kind in ("depth", "mask", "scores")}
    if frames and images and len(frames) not in images:
        raise ConfigError(f"{len(frames)} sizes of photos for {min(images)} images")
    scores = [
        arrays[o.name] for o in outputs if o.kind == "scores" and arrays[o.name].ndim == 3
    ]
    found: dict[str, Any] = {}
    for output in outputs:
        value = arrays[output.name]
        if output.kind == "logits":
            found[output.name] = top_predictions(value, output.labels, TOP)
        elif output.kind in ("depth", "mask"):
            found[output.name] = _maps(output, value, frames)
        elif output.kind == "boxes" and scores and value.ndim == 3:
            found[output.name] = _objects(output, value, scores[0], frames, threshold)
        else:
            found[output.name] = _numpy(value)
    return found


def _maps(output: Output, value: mx.array, frames: Sequence[Frame]) -> list[Array]:
    """(B, H, W, 1), or channels first, as an (H, W) array for each image."""
    maps = _numpy(value.squeeze(-1 if output.axes and value.shape[-1] == 1 else 1))
    if output.kind == "mask":
        maps = maps.round().astype("int32")
    if not frames:
        return list(maps)
    smooth = output.kind == "depth"
    return [f.map(m, smooth=smooth) for f, m in zip(frames, maps, strict=True)]


def _objects(
    output: Output,
    boxes: mx.array,
    scores: mx.array,
    frames: Sequence[Frame],
    threshold: float,
) -> list[list[Detection]]:
    whole = Frame((1, 1), (0, 0, 1, 1))
    rows = zip(_numpy(boxes), _numpy(scores), frames or [whole] * len(boxes), strict=True)
    return [
        detections(b, s, output.labels, threshold, frame, output.max_overlap)
        for b, s, frame in rows
    ]


def _numpy(value: mx.array) -> Array:
    import numpy as np

    return np.array(value)
