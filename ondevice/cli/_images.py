"""What commands that take images have in common: skipped files, and which value is white."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import click

from ..errors import ImageError
from ..image.open import ImageFile
from ._numbers import FloatRange

T = TypeVar("T")

SKIPPED = 3  # exit status
SKIPS = (
    "Files that cannot be used are skipped, then named and counted on stderr, with exit "
    "status 3; if none can be used it is 2."
)

max_level_option = click.option(
    "--max-level",
    type=FloatRange(0, 2**32, min_open=True, max_open=True),
    help="Value that is white in grey images of more than 8 bits, such as 4095.  "
    "[default: 65535]",
)


def files(paths: Iterable[str], max_level: float | None) -> list[Any]:
    """The paths as images to open, with ``max_level`` as their white if it is given."""
    return [path if max_level is None else ImageFile(path, max_level) for path in paths]


def spread(items: Sequence[T], limit: int) -> list[T]:
    """At most ``limit`` of the items, evenly spaced."""
    count = min(limit, len(items))
    return [items[i * len(items) // count] for i in range(count)]


class Skipped:
    """Files that a command goes on without: an ``on_error`` that names each at the end."""

    def __init__(self) -> None:
        self.found: dict[int, ImageError] = {}  # by position

    def __call__(self, position: int, error: ImageError) -> None:
        """Remember the file at ``position`` and why it is skipped."""
        self.found[position] = error

    @property
    def problems(self) -> list[str]:
        """A line for each skipped file."""
        return [str(error) for error in self.found.values()]

    def used(self, items: Iterable[Any]) -> list[Any]:
        """Those of ``items`` that were not skipped."""
        return [item for i, item in enumerate(items) if i not in self.found]

    def tell(self, total: int) -> None:
        """Name and count the skipped ones of ``total`` files."""
        for problem in self.problems:
            click.echo(f"skipped: {problem}", err=True)
        if self.found:
            click.echo(f"{len(self.found):,} of {total:,} files skipped", err=True)

    def check(self, total: int) -> None:
        """Raises ImageError if nothing is left of ``total`` files."""
        if total == 1 and self.found:
            raise self.found[0]
        if self.found and len(self.found) == total:
            self.tell(total)
            raise ImageError(f"none of {total:,} files is a usable image")

    def status(self, total: int) -> int:
        """Tell, and give the exit status of a command that has done the rest of its work."""
        self.tell(total)
        return SKIPPED if self.found else 0
