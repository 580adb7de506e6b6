"""What FOLDER, GLOB, FILE.txt and - mean: paths of pictures, always in the same order."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from .errors import ConfigError, printable

IMAGE_SUFFIXES = frozenset(".jpg .jpeg .png .webp .bmp .gif .tif .tiff .heic".split())


def expand(sources: Iterable[str]) -> Iterator[str]:
    """The paths that ``sources`` mean, in the order of the sources.

    A folder gives the pictures below it and a pattern the files that match, both sorted by
    the bytes of their paths, whatever the language of the machine; a ``.txt`` file and "-"
    (standard input) give their lines as they come; anything else is a picture itself. A
    folder's hidden files and linked folders are passed over. One listing at a time is in
    memory, and all matches of a pattern.

    Raises ConfigError, after the last path, that names every source that gave none.
    """
    problems = []
    for source in sources:
        nothing = True
        try:
            for path in _paths(source):
                nothing = False
                yield path
        except OSError as error:
            name = printable(str(error.filename or source))
            problems.append(f"{name} cannot be read: {error.strerror}")
        else:
            problems += [f"{printable(source)} {_why_empty(source)}"] if nothing else []
    if problems:
        raise ConfigError("; ".join(problems))


def _paths(source: str) -> Iterator[str]:
    if source == "-":
        return _lines(sys.stdin.buffer)
    if os.path.isdir(source):
        return _walk(source)
    if source.lower().endswith(".txt"):
        return _listed(source)
    if glob.has_magic(source) and not os.path.lexists(source):
        return _matching(source)
    return iter([source])


def _why_empty(source: str) -> str:
    if os.path.isdir(source):
        return f"has no pictures ({' '.join(sorted(IMAGE_SUFFIXES))})"
    return "matches no file" if glob.has_magic(source) else "lists no files"


def _walk(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        found = [(e.name, e.is_dir(follow_symlinks=False)) for e in entries]
    # A folder sorts as "name/": the whole walk is then in the order of whole paths.
    for name in sorted((f"{n}/" if deep else n for n, deep in found), key=os.fsencode):
        path = os.path.join(folder, name)
        if name.startswith("."):
            continue
        if name.endswith("/"):
            yield from _walk(path)
        elif os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
            yield path


def _matching(pattern: str) -> Iterator[str]:
    found = sorted(glob.iglob(pattern, recursive=True), key=os.fsencode)
    return (path for path in found if not os.path.isdir(path))


def _listed(path: str) -> Iterator[str]:
    with open(path, "rb") as file:
        yield from _lines(file)


def _lines(file: BinaryIO) -> Iterator[str]:
    for line in file:
        if name := line.rstrip(b"\r\n"):
            yield os.fsdecode(name)
