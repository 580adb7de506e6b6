"""``ondevice describe``: what a language model says about an image."""

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
@click.option(
    "--prompt", default="Describe the image.", show_default=True, help="Question or request."
)
@click.option(
    "--together", is_flag=True, help="Give one answer to all images, not one to each."
)
@click.option(
    "--max-tokens", default=256, show_default=True, help="Maximum tokens of an answer."
)
@click.option(
    "--temperature",
    default=0.0,
    show_default=True,
    help="Randomness of the answer; 0 takes the most likely words.",
)
@click.option(
    "--top-p", default=1.0, show_default=True, help="Share of probability to draw words from."
)
@click.option("--seed", type=int, help="Seed that makes random answers repeatable.")
@click.option("--stop", multiple=True, help="End an answer before this text; may be repeated.")
@click.option(
    "--size",
    default=1024,
    show_default=True,
    help="Side of the image in pixels; gives (size / 64)² tokens.",
)
@click.option(
    "--crop",
    default="pad",
    show_default=True,
    help="How to make the image square: pad or center.",
)
@click.option("--tokens", type=int, help="Number of tokens to reduce an image to.")
@click.option(
    "--method", default="dct", show_default=True, help="How to reduce the tokens: dct or merge."
)
@click.option("--timings", is_flag=True, help="Print on stderr how long each part took.")
@max_level_option
@model_options
@json_option
@click.pass_context
def describe_command(
    ctx: click.Context,
    /,
    images: tuple[str, ...],
    together: bool,
    timings: bool,
    max_level: float | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Answer PROMPT about each IMAGE with FastVLM, printing the words as they come.

    <image> in PROMPT says where the image is; without it, the image comes first. With
    --together, every image has to be usable.
    """
    from ..tasks.vlm import Vision

    vision = Vision(
        **{name: options.pop(name) for name in ("size", "crop", "tokens", "method")}
    )
    vlm = load(**{name: options.pop(name) for name in ("model", "revision", "dtype")})
    groups = [images] if together else [(image,) for image in images]
    results, skipped = [], Skipped()
    for position, group in enumerate(groups):
        try:
            opened = files(group, max_level)
            answer = vlm.stream(images=opened, vision=vision, **options)
        except ImageError as error:
            skipped(position, error)
            continue
        if as_json:
            results.append(_result(group, answer.finish()))
        else:
            _print(answer, ", ".join(group) if len(groups) > 1 else "")
            if timings:
                click.echo(_timings(answer.timings), err=True)
    skipped.check(len(groups))
    if as_json:
        report = _report(vlm, options["prompt"], vision, results)
        print_json(report | {"skipped": skipped.problems})
    ctx.exit(skipped.status(len(groups)))


def _print(answer: Answer, title: str) -> None:
    if title:
        click.echo(f"{click.format_filename(title)}:")
    try:
        for text in answer:
            click.echo(text, nl=False)
            sys.stdout.flush()
    finally:  # also when it is interrupted
        click.echo()


def _timings(t: Timings) -> str:
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
