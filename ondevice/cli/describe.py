"""``ondevice describe``: what a language model says of a picture."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click

from ..errors import ImageError
from ._images import SKIPS, Skipped, files, max_level_option
from ._output import json_option, print_json
from ._vision import load, model_options

if TYPE_CHECKING:
    from ..tasks.vlm import VLM, Answer, Timings


@click.command("describe", epilog=SKIPS)
@click.argument("images", metavar="IMAGE...", nargs=-1, required=True)
@click.option("--prompt", default="Describe the image.", show_default=True)
@click.option("--together", is_flag=True, help="One answer to all images, not one to each.")
@click.option("--max-tokens", default=256, show_default=True, help="Of an answer.")
@click.option("--temperature", default=0.0, show_default=True, help="0: the likeliest words.")
@click.option("--top-p", default=1.0, show_default=True, help="Share of likely words.")
@click.option("--seed", type=int, help="Makes answers with a temperature repeatable.")
@click.option("--stop", multiple=True, help="End before this text; may be given again.")
@click.option("--size", default=1024, show_default=True, help="Pixels: (size / 64)² tokens.")
@click.option("--crop", default="pad", show_default=True, help="pad or center.")
@click.option("--tokens", type=int, help="Reduce an image to so many tokens.")
@click.option("--method", default="dct", show_default=True, help="How: dct or merge.")
@click.option("--timings", is_flag=True, help="Say on stderr how long each part took.")
@max_level_option
@model_options
@json_option
@click.pass_context
def describe_command(
    ctx: click.Context,
    /,
    images: tuple[str, ...],
    prompt: str,
    together: bool,
    size: int,
    crop: Any,
    tokens: int | None,
    method: Any,
    timings: bool,
    max_level: float | None,
    model: str,
    revision: str | None,
    dtype: str,
    as_json: bool,
    **sampling: Any,
) -> None:
    """Answer PROMPT about each IMAGE with FastVLM, as the words come.

    Where PROMPT has <image>, there is the image; else before it. With --together all of the
    images are needed.
    """
    from ..tasks.vlm import Vision

    vision = Vision(size=size, crop=crop, tokens=tokens, method=method)
    vlm = load(model, revision, dtype)
    groups = [images] if together else [(image,) for image in images]
    results, skipped = [], Skipped()
    for position, group in enumerate(groups):
        try:
            opened = files(group, max_level)
            answer = vlm.stream(prompt, opened, vision=vision, **sampling)
        except ImageError as error:
            skipped(position, error)
            continue
        if as_json:
            results.append(_result(group, answer.finish()))
        else:
            _print(answer, ", ".join(group) if len(groups) > 1 else "")
            if timings:
                click.echo(_split(answer.timings), err=True)
    skipped.check(len(groups))
    if as_json:
        report = _report(vlm, prompt, vision, results)
        print_json(report | {"skipped": skipped.problems})
    ctx.exit(skipped.status(len(groups)))


def _print(answer: Answer, title: str) -> None:
    if title:
        click.echo(f"{click.format_filename(title)}:")
    try:
        for piece in answer:
            click.echo(piece, nl=False)
            sys.stdout.flush()
    finally:  # also when it is interrupted
        click.echo()


def _split(t: Timings) -> str:
    parts = ("preprocess", "encode", "project", "prefill")
    split = ", ".join(f"{part} {getattr(t, part):.3f}" for part in parts)
    return (
        f"first token after {t.time_to_first_token:.3f} s ({split}), then "
        f"{t.tokens_per_second:.1f} tokens/s; {t.image_tokens} of {t.prompt_tokens} prompt "
        "tokens are of images"
    )


def _result(images: tuple[str, ...], answer: Answer) -> dict[str, Any]:
    return {
        "images": list(images),
        "text": answer.text,
        "finish_reason": answer.finish_reason,
        "timings": answer.timings.to_dict(),
    }


def _report(vlm: VLM, prompt: str, vision: Any, results: list[Any]) -> dict[str, Any]:
    from dataclasses import asdict

    return {"model": vlm.name, "prompt": prompt, "vision": asdict(vision), "results": results}
