"""Depth, masks and objects of photos, in the photos' own pixels."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import mlx.nn as nn

from ..cpu import blas
from ..cpu.threads import run
from ..errors import ConfigError, ImageError
from ..image.open import as_rgb
from ..image.preprocess import each, preprocess
from ..signature import THRESHOLD, signature_of

if TYPE_CHECKING:
    from PIL import Image

    from ..image.open import ImageLike
    from ..image.preprocess import OnError
    from ..signature import OutputKind, Signature


@dataclass(frozen=True)
class Result:
    """What a model found in one photo: see ``Signature.decode``."""

    position: int  # of the photo among those given
    photo: Image.Image
    found: Any


def predict(
    model: nn.Module,
    photos: ImageLike | Iterable[ImageLike],
    kind: OutputKind,
    *,
    threshold: float = THRESHOLD,
    on_error: OnError | None = None,
) -> Iterator[Result]:
    """The output of ``kind`` ("depth", "mask", "boxes") for each photo, one at a time.

    ``photos`` is what ``ondevice.preprocess`` takes: one, or several. Depth is (height, width)
    values, a mask (height, width) class numbers, boxes are ``Detection``s that score
    ``threshold`` or more. A photo that cannot be used is left out and given to ``on_error``,
    by its position and the ImageError.

    Raises ConfigError if the model gives nothing of that kind; without ``on_error``,
    ImageError.
    """
    signature = of_kind(model, kind)
    contract = signature.images[0].contract
    assert contract is not None  # of an image
    name = next(o.name for o in signature.outputs if o.kind == kind)
    blas.advise()

    def compute(x: mx.array) -> Any:
        return signature.compute(model, x)

    for position, given in enumerate(each(photos)):
        try:
            photo = as_rgb(given)
            x = preprocess(photo, contract)
        except ImageError as error:
            if on_error is None:
                raise
            on_error(position, error)
            continue
        outputs: Any = run(compute, x)
        decoded = signature.decode(outputs, [photo.size], threshold)
        yield Result(position, photo, decoded[name][0])


def of_kind(model: nn.Module, kind: OutputKind) -> Signature:
    """The model's signature for outputs of ``kind``, and the scores of boxes.

    Raises ConfigError if there are none, or it takes not one image.
    """
    signature = signature_of(model)
    wanted = {kind, "scores"} if kind == "boxes" else {kind}
    outputs = [o for o in signature.outputs if o.kind in wanted] if signature else []
    if signature is None or len(signature.inputs) != 1 or not signature.images:
        raise ConfigError(f"{type(model).__name__} takes no single image")
    kinds = {o.kind for o in outputs}
    if kind not in kinds:
        raise ConfigError(f"{signature.model} gives no {kind}: it gives {signature.kinds}")
    first = {k: next(o.name for o in outputs if o.kind == k) for k in kinds}
    return signature.select(first.values())
