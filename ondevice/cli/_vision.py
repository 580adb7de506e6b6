"""Options of the commands that show pictures to a language model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..tasks.vlm import VLM

DEFAULT_MODEL = "apple/FastVLM-0.5B"
DTYPES = ("float32", "bfloat16", "float16")


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--dtype", type=click.Choice(DTYPES), default="float32", help="Of the encoder."
        ),
        click.option("--revision", help="Of the repository: a branch, tag or commit."),
        click.option(
            "--model", default=DEFAULT_MODEL, show_default=True, help="Repository or folder."
        ),
    ):
        command = option(command)
    return command


def load(model: str, revision: str | None, dtype: str) -> VLM:
    import mlx.core as mx

    from ..tasks.vlm import load_vlm

    return load_vlm(model, revision=revision, dtype=getattr(mx, dtype))
