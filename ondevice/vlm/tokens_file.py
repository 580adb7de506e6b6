"""Tokens of pictures on the disk, for whoever brings a language model."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import mlx.core as mx

from ..errors import ConfigError, ImageError
from ..output import replacing
from ..safetensors import write_safetensors
from .clock import Clock
from .vision import Vision, VisionTower

if TYPE_CHECKING:
    from ..preprocess import OnError

KEY = "ondevice.tokens"  # where the JSON is


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
    """Write (pictures, tokens, dim) as ``tokens``; how many pictures those are.

    The metadata say as JSON the ``paths`` and how the pictures were seen. All is in memory
    until it is written: a megabyte a picture of 256 tokens. A picture that cannot be used is
    left out and given to ``on_error``, or raises ImageError.
    """
    out, vision = Path(out), vision or Vision()
    if out.suffix != ".safetensors":
        raise ConfigError(f"{out} has to end with .safetensors")
    with replacing(out, force=force) as partial:
        found: list[tuple[str, mx.array]] = []
        for position, path in enumerate(paths):
            try:
                found.append((path, _tokens(tower, path, vision, projected)))
            except ImageError as error:
                if on_error is None:
                    raise
                on_error(position, error)
        if not found:
            raise ImageError("none of the files is a usable picture; nothing is written")
        used, tokens = zip(*found, strict=True)
        info = {"paths": used, "vision": asdict(vision), "projected": projected}
        write_safetensors(partial, {"tokens": mx.stack(list(tokens))}, {KEY: json.dumps(info)})
    return len(found)


def _tokens(tower: VisionTower, path: str, vision: Vision, projected: bool) -> mx.array:
    if projected:
        return tower.embed(path, vision, Clock())[0]
    tokens = tower.tokens(tower.levels(path, vision), vision)[0]
    mx.eval(tokens)
    return tokens
