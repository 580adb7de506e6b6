"""``ondevice train``: a model for one's own classes."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ._images import SKIPPED
from ._numbers import FloatRange
from ._output import Progress, is_given, json_option, print_json, print_table

if TYPE_CHECKING:
    from ..tasks.train.history import Epoch

METHODS = ("auto", "knn", "probe", "full", "adapter")
# Settings of --method full and adapter: the names of their parameters here.
OF_FULL = {
    *("epochs", "batch_size", "accumulate", "lr", "warmup", "weight_decay", "layer_decay"),
    *("label_smoothing", "drop_path", "ema", "patience", "resume", "no_flip", "augment"),
    "train_size",
    "precision",
    *("recipe", "qat_epochs", "teacher", "teacher_views"),
}
NOT_FOR_METHOD = {
    "auto": {"adapter"},
    "full": {"adapter"},
    "adapter": set[str](),
    "probe": {"adapter", *OF_FULL},
    "knn": {"adapter", "balance", *OF_FULL},
}
OF_CLASSIFIERS = {
    *("adapter", "balance", "label_smoothing", "precision", "train_size", "augment"),
    *("recipe", "qat_epochs", "teacher", "teacher_views"),
}
NOT_FOR_TASK = {
    "classify": {"backbone"},
    "detect": OF_CLASSIFIERS,
    "segment": OF_CLASSIFIERS,
}


@click.command("train")
@click.argument("images", type=click.Path(path_type=Path))
@click.option(
    "--model",
    default="",
    help="Where to start: model name, name.tag or saved folder.  [shvit_s1; "
    "light_detr_shvit_nano to detect, light_fpn_shvit_nano to segment]",
)
@click.option(
    "--task",
    type=click.Choice(list(NOT_FOR_TASK)),
    default="classify",
    show_default=True,
    help="detect: boxes in COCO's form, as COCO and Roboflow write them; segment: images and "
    "masks, PNG files of class numbers, which classes.txt names.",
)
@click.option(
    "--backbone",
    default="",
    help="Classifier whose weights a new model's backbone has, to detect or segment: name.tag "
    "or folder.  [the one it is on]",
)
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), help="The folder to write."
)
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="auto",
    show_default=True,
    help="knn: nearest class mean; probe: a head on features that stay; full: all weights; "
    "adapter: a head, and bottlenecks beside weights that stay.",
)
@click.option(
    "--adapter-rank",
    "adapter",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Channels of the bottlenecks of --method adapter.",
)
@click.option("--size", type=click.IntRange(min=1), help="Input size in pixels.  [the model's]")
@click.option(
    "--train-size",
    type=click.IntRange(min=1),
    help="Side in pixels of the crops to train on; a smaller one than --size shows things as "
    "large as they will be.  [--size]",
)
@click.option("--random-weights", is_flag=True, help="Start from nothing.")
@click.option(
    "--val-share",
    type=FloatRange(0, 1, min_open=True, max_open=True),
    default=0.2,
    show_default=True,
    help="Share of each class to validate on, where no folder is called val.",
)
@click.option("--balance", is_flag=True, help="Give rare classes as much weight as others.")
@click.option("--epochs", type=int, default=30, show_default=True)
@click.option("--batch-size", type=int, default=32, show_default=True)
@click.option(
    "--accumulate", type=int, default=1, show_default=True, help="Parts of a batch, for memory."
)
@click.option(
    "--lr",
    type=float,
    help="Peak learning rate.  [0.001; 0.00003 if all epochs round by --recipe]",
)
@click.option("--warmup", type=int, default=1, show_default=True, help="Epochs up to the peak.")
@click.option("--weight-decay", type=float, default=0.05, show_default=True)
@click.option(
    "--layer-decay",
    type=float,
    default=0.9,
    show_default=True,
    help="Learning rate of a block by that of the next.",
)
@click.option("--label-smoothing", type=float, default=0.1, show_default=True)
@click.option(
    "--drop-path", type=float, default=0.0, show_default=True, help="Share of dropped branches."
)
@click.option(
    "--ema",
    type=float,
    default=0.0,
    show_default=True,
    help="Save an average of the weights: the share that a step keeps, such as 0.99.",
)
@click.option(
    "--patience",
    type=int,
    default=0,
    show_default=True,
    help="Stop after so many epochs without a better validation; 0: never.",
)
@click.option(
    "--recipe",
    help="Train for this compression, which export then uses: a preset such as palette4 or "
    "w8a8, or a file of rules.",
)
@click.option(
    "--qat-epochs",
    type=click.IntRange(min=1),
    help="Last epochs that round by --recipe.  [a fifth]",
)
@click.option(
    "--teacher",
    default="",
    help="Learn what this model says of the images, not their labels: a folder, or a name, "
    "with the same classes.",
)
@click.option(
    "--teacher-views",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Random views of each image that the teacher sees, once.",
)
@click.option(
    "--precision",
    type=click.Choice(("float32", "bfloat16", "float16")),
    default="float32",
    show_default=True,
    help="What a step computes in; weights are kept in float32.",
)
@click.option(
    "--augment",
    type=click.Choice(("light", "usual", "strong")),
    help="How far images are changed: strong where few of them are learned by heart, light "
    "where training is short.  [usual]",
)
@click.option("--no-flip", is_flag=True, help="Left and right differ: do not mirror images.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True)
@click.option("--workers", type=click.IntRange(min=1), help="Threads that decode.  [all cores]")
@click.option("--resume", is_flag=True, help="Go on with a training that was interrupted.")
@click.option("--force", is_flag=True, help="Replace an existing folder, or start over.")
@json_option
@click.pass_context
def train_command(
    ctx: click.Context,
    /,
    images: Path,
    out: Path,
    method: str,
    random_weights: bool,
    as_json: bool,
    task: str,
    **options: Any,
) -> None:
    """Train a classifier on IMAGES: a folder for each class, or labels.csv. With --task detect
    a detector on boxes, with --task segment what names each pixel, on masks.

    Folders called train, val and test are kept apart; else a share of each class is set aside.
    Hugging Face's metadata.csv and .jsonl are read as well. What is unreadable, and copies of
    a class's images, are left out and named: exit status 3. Killed, the same command with
    --resume goes on to the same weights. Started by mlx.launch, the ranks share each batch.
    """
    import mlx.core as mx

    from ..tasks.train.run import train

    for choice, others in (("task", NOT_FOR_TASK[task]), ("method", NOT_FOR_METHOD[method])):
        _refuse(ctx, f"--{choice} {ctx.params[choice]}", others)
    # The defaults are train's own: only so does it know what was asked for.
    options = {k: v for k, v in options.items() if is_given(ctx, k)}
    _check_pairs(ctx)
    if "no_flip" in options:
        options["flip"] = not options.pop("no_flip")
    if "recipe" in options:
        options["rounding"] = _rounding(options.pop("recipe"))
    skipped: list[str] = []
    group = mx.distributed.init()
    model = train(
        images,
        out,
        task=task,
        method=method,
        pretrained=not random_weights,
        group=group,
        callbacks=[_shown()] if group.rank() == 0 else [],
        on_skipped=skipped.append,
        **options,
    )
    if group.rank():
        return
    facts = {"out": str(out), "model": model.info.model, "classes": len(model.info.labels)}
    facts |= {"license": model.info.license, **model.info.metrics}
    for problem in skipped:
        click.echo(f"skipped: {problem}", err=True)
    if as_json:
        print_json(facts | {"skipped": skipped})
    else:
        print_table(("saved", str(out)), list(facts.items())[1:])
    ctx.exit(SKIPPED if skipped else 0)


GO_WITH = {"qat_epochs": "recipe", "teacher_views": "teacher"}


def _check_pairs(ctx: click.Context) -> None:
    """Raises UsageError for an option that goes with one that is not given, or without it."""
    for name, other in GO_WITH.items():
        if is_given(ctx, name) and not is_given(ctx, other):
            raise click.UsageError(f"{_option(name)} goes with {_option(other)}.")
    if is_given(ctx, "teacher") and is_given(ctx, "label_smoothing"):
        raise click.UsageError("--label-smoothing is of labels, not of a --teacher.")


def _option(name: str) -> str:
    return "--adapter-rank" if name == "adapter" else f"--{name.replace('_', '-')}"


def _rounding(recipe: str) -> Any:
    """How export rounds by a recipe. Raises ConfigError."""
    from converters.compress.training import rounding

    return rounding(recipe)


def _refuse(ctx: click.Context, choice: str, names: Iterable[str]) -> None:
    """Raises UsageError for an option that is given, but not for this choice."""
    known = [p.name for p in ctx.command.params if p.name in names]
    given = [_option(name) for name in known if name and is_given(ctx, name)]
    if given:
        raise click.UsageError(f"{', '.join(given)} not for {choice}.")


def _shown() -> Any:
    """A callback that shows on stderr how far the training is."""
    from ..tasks.train.fit import Callback

    class Shown(Callback):
        def __init__(self) -> None:
            self.steps = Progress("training", "steps") if sys.stderr.isatty() else None

        def on_view(self, done: int, total: int) -> None:
            click.echo(f"teacher: view {done} of {total}", err=True)

        def on_step(self, done: int, total: int, loss: float) -> None:
            if self.steps:
                self.steps(done, total)

        def on_epoch(self, epoch: Epoch) -> None:
            click.echo(
                f"epoch {epoch.epoch}: loss {epoch.loss:.3f}, validation {epoch.score:.1%}, "
                f"{epoch.seconds:.1f} s, {epoch.images_per_second:.0f} images/s",
                err=True,
            )

    return Shown()
