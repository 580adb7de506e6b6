"""Visual tokens of images in a file, for any language model."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx
import numpy as np

from ...errors import ConfigError, ImageError
from ...weights.output import replacing
from ...weights.safetensors import header
from ..clock import Clock
from .vision import Vision, VisionTower

if TYPE_CHECKING:
    from ...image.preprocess import OnError

KEY = "ondevice.tokens"  # where the JSON is
HEADER = 4096  # bytes that are left for it: the number of images is known at the end


def write_tokens(
    tower: VisionTower,
    paths: Iterable[str],
    out: str | Path,
    *,
    vision: Vision | None = None,
    projected: bool = True,
    force: bool = False,
    on_error: OnError | None = None,
) -> int:
    """Write ``tokens`` (images, tokens, dim) to a .safetensors file; returns how many images.

    ``paths`` are beside them as bytes, each path ended by a zero; ``vision`` is in the metadata
    as JSON. Each image is written when it is encoded, so that memory does not depend on their
    number. An image that cannot be used is left out and given to ``on_error``, by its position
    and the ImageError.

    Raises ConfigError for another kind of file; ImageError if no image can be used, or without
    ``on_error`` for the first that cannot; OutputError.
    """
    out, vision = Path(out), vision or Vision()
    if out.suffix != ".safetensors":
        raise ConfigError(f"{out} has to end with .safetensors")
    names, tokens = bytearray(), None
    count = 0
    with replacing(out, force=force) as partial, partial.open("wb") as file:
        file.seek(HEADER)
        for path, tokens in _encoded(tower, paths, vision, projected, on_error):
            file.write(np.asarray(tokens.flatten().view(mx.uint8)).data)
            names += os.fsencode(path) + b"\0"
            count += 1
        if tokens is None:
            raise ImageError("none of the files is a usable image; nothing is written")
        file.write(names)
        file.seek(0)
        info = {"vision": asdict(vision), "projected": projected}
        file.write(_header(count, tokens, len(names), info))
    return count


def _encoded(
    tower: VisionTower,
    paths: Iterable[str],
    vision: Vision,
    projected: bool,
    on_error: OnError | None,
) -> Iterator[tuple[str, mx.array]]:
    """Each usable image with its (tokens, dim)."""
    for position, path in enumerate(paths):
        try:
            yield path, _tokens(tower, path, vision, projected)
        except ImageError as error:
            if on_error is None:
                raise
            on_error(position, error)


def _tokens(tower: VisionTower, path: str, vision: Vision, projected: bool) -> mx.array:
    if projected:
        return tower.embed(path, vision, Clock())[0]
    tokens = tower.tokens(tower.pixels(path, vision), vision)[0]
    mx.eval(tokens)
    return tokens


def _header(count: int, tokens: mx.array, name_bytes: int, info: dict[str, Any]) -> bytes:
    arrays = {
        "tokens": (tokens.dtype, [count, *tokens.shape]),
        "paths": (mx.uint8, [name_bytes]),
    }
    return header(arrays, {KEY: json.dumps(info)}, HEADER)[0]
