"""Options of the commands that show images to a language model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ..tasks.vlm import VLM

DEFAULT_MODEL = "apple/FastVLM-0.5B"
DTYPES = ("float32", "bfloat16", "float16")


def model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add ``--model``, ``--revision`` and ``--dtype`` to a command."""
    for option in (
        click.option(
            "--dtype",
            type=click.Choice(DTYPES),
            default="float32",
            help="Data type of the encoder.",
            show_default=True,
        ),
        click.option("--revision", help="Branch, tag or commit of the repository."),
        click.option(
            "--model",
            default=DEFAULT_MODEL,
            show_default=True,
            help="FastVLM on the hub (OWNER/NAME), or its folder.",
        ),
    ):
        command = option(command)
    return command


def load(model: str, revision: str | None, dtype: str) -> VLM:
    """What those options name. Raises ConfigError, HubError, WeightsError."""
    import mlx.core as mx

    from ..tasks.vlm import load_vlm

    return load_vlm(model, revision=revision, dtype=getattr(mx, dtype))
