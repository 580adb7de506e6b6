"""What the commands have in common that find something at every place of a photo."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..errors import ConfigError
from ..image.files import expand
from ._images import SKIPS, Skipped, files, max_level_option
from ._output import json_option, print_json, print_table, progress

if TYPE_CHECKING:
    from PIL import Image

    from ..tasks.dense import Result

EPILOG = SKIPS
SUFFIX = ".png"


def dense_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the arguments and options that all of these commands have."""
    for option in (
        json_option,
        click.option("--force", is_flag=True, help="Replace what is at --out."),
        max_level_option,
        click.option(
            "--out",
            type=click.Path(path_type=Path),
            help="Draw: to a .png of one image, to a folder of several.",
        ),
        click.option("--model", required=True, help="Model name, name.tag or saved folder."),
        click.argument("sources", metavar="IMAGE|FOLDER...", nargs=-1, required=True),
    ):
        command = option(command)
    return command


class Job:
    """A model to run on the images that were given, and where its drawings go."""

    def __init__(
        self,
        kind: Any,
        sources: Sequence[str],
        model: str,
        out: Path | None,
        max_level: float | None,
        force: bool,
    ) -> None:
        """Raises ConfigError, OutputError, and what ``load`` raises."""
        from ..nn.fuse import fuse
        from ..tasks.dense import of_kind
        from ..tasks.load import load
        from ..weights.output import check_free

        if force and out is None:
            raise ConfigError("--force goes with --out: nothing else is written")
        self.kind, self.out, self.max_level, self.force = kind, out, max_level, force
        self.paths = list(expand(sources))
        self.is_one = len(self.paths) == 1 and list(sources) == self.paths
        if out is not None:
            if self.is_one != (out.suffix.lower() == SUFFIX):
                wanted = "a .png file" if self.is_one else "a folder, with no suffix .png"
                raise ConfigError(f"--out {out}: of {_several(self.paths)} it is {wanted}")
            check_free(out.absolute(), force=force, marker=self._marker)
        self.model = fuse(load(model))
        self.signature = of_kind(self.model, kind)
        self.skipped = Skipped()

    def run(
        self,
        row: Callable[[str, Result], dict[str, Any]],
        draw: Callable[[Result], Image.Image],
        **options: Any,
    ) -> list[dict[str, Any]]:
        """A ``row`` about each image, drawn where that is wanted. Raises ImageError if none
        can be used; then nothing is written."""
        from ..tasks.dense import predict

        shown = progress(files(self.paths, self.max_level), "looking", len(self.paths))
        found = []
        with self._drawings() as write:
            for result in predict(
                self.model, shown, self.kind, on_error=self.skipped, **options
            ):
                path = self.paths[result.position]
                drawn = write(path, partial(draw, result))
                found.append({"image": path, **row(path, result), **drawn})
            self.skipped.check(len(self.paths))
        return found

    @property
    def _marker(self) -> str:
        """What says that a folder is of such drawings: one of them. A file needs none."""
        if self.is_one or self.out is None:
            return ""
        names = list(_drawing_names(self.paths).values())
        there = (name for name in names if (self.out / name).is_file())
        return next(there, names[0])  # of a photo that was skipped there is none

    @contextmanager
    def _drawings(self) -> Iterator[Callable[[str, Callable[[], Image.Image]], dict[str, str]]]:
        """What saves a drawing under the name of its photo, all of them or none."""
        from ..weights.output import replacing

        if self.out is None:
            yield lambda path, drawing: {}
            return
        out, names = self.out, _drawing_names(self.paths)
        with replacing(out, force=self.force, marker=self._marker) as place:
            if not self.is_one:
                place.mkdir()

            def write(path: str, drawing: Callable[[], Image.Image]) -> dict[str, str]:
                name = names[path]
                drawing().save(place if self.is_one else place / name, format="PNG")
                return {"drawing": str(out if self.is_one else out / name)}

            yield write

    def finish(
        self,
        ctx: click.Context,
        found: list[dict[str, Any]],
        header: Sequence[str],
        rows: Callable[[dict[str, Any]], Sequence[object]],
        facts: dict[str, Any] | None,
    ) -> None:
        """Print a table, or ``facts`` as JSON where there are some, and give the status."""
        if facts is not None:
            print_json(facts | {"skipped": self.skipped.problems})
        else:
            print_table(
                ("image", *header),
                [(click.format_filename(r["image"]), *rows(r)) for r in found],
            )
        ctx.exit(self.skipped.status(len(self.paths)))


def image(row: dict[str, Any]) -> dict[str, Any]:
    """What COCO says of an image, and where it is drawn."""
    said = {"id": row["id"], "file_name": row["image"]}
    said |= {"width": row["width"], "height": row["height"]}
    return said | ({"drawing": row["drawing"]} if "drawing" in row else {})


def _several(paths: Sequence[str]) -> str:
    return "one image" if len(paths) == 1 else f"{len(paths):,} images"


def _drawing_names(paths: Sequence[str]) -> dict[str, str]:
    """A name for the drawing of each photo: its own, numbered where two have the same."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for path in dict.fromkeys(paths):
        stem = os.path.splitext(os.path.basename(path))[0]
        name, count = f"{stem}{SUFFIX}", 1
        while name in taken:
            count += 1
            name = f"{stem}-{count}{SUFFIX}"
        names[path] = name
        taken.add(name)
    return names
