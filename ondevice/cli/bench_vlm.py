"""``ondevice bench-vlm``: what an image's size and tokens cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from ..errors import ConfigError
from ._output import json_option, print_json, print_table, progress
from ._vision import load, model_options

if TYPE_CHECKING:
    from ..tasks.vlm import Vision
    from ..tasks.vlm.bench import Cost

SIZES = (256, 512, 768, 1024)
HEADER = (
    ">px",
    ">tokens",
    "reduced",
    ">preprocess",
    ">encode",
    ">project",
    ">prefill",
    ">first token",
    ">tokens/s",
    ">error",
)


@click.command("bench-vlm")
@click.argument("image", required=False)
@click.option(
    "--size",
    "sizes",
    type=int,
    multiple=True,
    help="Side of the image in pixels; may be repeated.",
)
@click.option(
    "--tokens",
    type=int,
    multiple=True,
    help="Number of tokens to reduce an image to; may be repeated.",
)
@click.option(
    "--method", "methods", multiple=True, help="Way to reduce: dct or merge; both by default."
)
@click.option(
    "--repeat",
    default=3,
    show_default=True,
    type=click.IntRange(min=1),
    help="Number of measurements, of which the median is printed.",
)
@model_options
@json_option
def bench_command(
    image: str | None,
    sizes: tuple[int, ...],
    tokens: tuple[int, ...],
    methods: tuple[Any, ...],
    repeat: int,
    model: str,
    revision: str | None,
    dtype: str,
    as_json: bool,
) -> None:
    """Print the time to the first token for sizes and numbers of tokens of IMAGE.

    Each size is measured whole, and with its tokens reduced, to a quarter by default; the error
    is then how far the projected tokens are from what they were. Without IMAGE, noise is used.
    """
    visions = plan(sizes or SIZES, tokens, methods or ("dct", "merge"))
    vlm = load(model, revision, dtype)
    from ..tasks.vlm.bench import bench

    measured = bench(vlm, image or _noise(), visions, repeat=repeat)
    costs = list(progress(measured, "measuring", len(visions), unit="settings"))
    if as_json:
        print_json({"model": vlm.name, "repeat": repeat, "costs": [asdict(c) for c in costs]})
    else:
        print_table(HEADER, map(_row, costs))


def plan(sizes: Sequence[int], tokens: Sequence[int], methods: Sequence[Any]) -> list[Vision]:
    """Each size as it is, then with fewer tokens, in every way. Raises ConfigError."""
    from ..tasks.vlm import Vision

    most = max(Vision(size=size).grid for size in sizes)
    if beyond := [n for n in tokens if not 0 < n < most]:
        raise ConfigError(
            f"--tokens {beyond[0]} reduces nothing: these sizes make {most} at most; give fewer"
        )
    visions = []
    for size in sizes:
        full = Vision(size=size)
        fewer = [n for n in tokens or [full.grid // 4] if 0 < n < full.grid]
        reduced = [Vision(size=size, tokens=n, method=m) for n in fewer for m in methods]
        visions += [full, *reduced]
    return visions


def _noise() -> Any:
    import numpy as np

    return np.random.default_rng(0).integers(0, 256, (768, 1024, 3), dtype=np.uint8)


def _row(cost: Cost) -> tuple[object, ...]:
    steps = ("preprocess", "encode", "project", "prefill", "time_to_first_token")
    return (
        cost.vision.size,
        cost.vision.count,
        cost.vision.method if cost.vision.tokens else None,
        *(f"{cost.seconds[step]:.3f} s" for step in steps),
        f"{cost.tokens_per_second:.1f}",
        None if cost.error is None else f"{cost.error:.1%}",
    )
