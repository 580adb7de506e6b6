"""What FOLDER, GLOB, FILE.txt and - mean: paths of images, always in the same order."""

from __future__ import annotations

import glob
import os
import sys
from collections.abc import Iterable, Iterator
from typing import BinaryIO

from ..errors import ConfigError, printable

# Formats that PIL reads, those it reads with a plugin, and JPEG XL, which is named as skipped.
IMAGE_SUFFIXES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .apng .webp .avif .avifs .heic .heif .hif .bmp .dib .gif .tif "
    ".tiff .mpo .jp2 .j2k .j2c .jpc .jpf .jpx .jxl .ppm .pgm .pbm .pnm .pfm .tga .qoi .ico "
    ".icns .pcx .dds .sgi .im .msp .xbm .blp".split()
)
# What systems and archives leave in folders: none of it is the user's image.
_LITTER = frozenset("__MACOSX @eaDir $RECYCLE.BIN Thumbs.db desktop.ini".split())


def is_image_name(name: str) -> bool:
    """Whether a file called so, found in a folder, is an image of the user's."""
    return not _is_litter(name) and os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def _is_litter(name: str) -> bool:
    """Hidden (as macOS's ``._name`` and ``.git`` are), or made by a system."""
    return name.startswith(".") or name in _LITTER


def expand(sources: Iterable[str]) -> Iterator[str]:
    """The paths that ``sources`` mean, in the order of the sources.

    A folder gives the images below it and a pattern the files that match, both sorted by
    the bytes of their paths, whatever the language of the machine; a ``.txt`` file and "-"
    (standard input) give their lines as they come; anything else is an image itself. What is
    hidden or made by a system is passed over. A folder's linked and unreadable folders come
    as paths of their own, which no image can be read from: so they are named, not entered.
    One listing at a time is in memory, and all matches of a pattern.

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
        return f"has no images ({' '.join(sorted(IMAGE_SUFFIXES))})"
    return "matches no file" if glob.has_magic(source) else "lists no files"


def _walk(folder: str) -> Iterator[str]:
    with os.scandir(folder) as entries:
        kept = [entry for entry in entries if not _is_litter(entry.name)]
    # A folder sorts as "name/": the whole walk is then in the order of whole paths.
    found = [(f"{e.name}/" if _is_folder(e) else e.name, e.is_symlink()) for e in kept]
    for name, linked in sorted(found, key=lambda entry: os.fsencode(entry[0])):
        path = os.path.join(folder, name)
        if not name.endswith("/"):
            if is_image_name(name):
                yield path
        elif linked or not os.access(path, os.R_OK | os.X_OK):
            yield path[:-1]
        else:
            yield from _walk(path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _matching(pattern: str) -> Iterator[str]:
    asked = pattern.split(os.sep)
    found = sorted(glob.iglob(pattern, recursive=True), key=os.fsencode)
    return (
        path
        for path in found
        if not os.path.isdir(path) and _LITTER.isdisjoint({*path.split(os.sep)} - {*asked})
    )


def _listed(path: str) -> Iterator[str]:
    with open(path, "rb") as file:
        yield from _lines(file)


def _lines(file: BinaryIO) -> Iterator[str]:
    for line in file:
        if name := line.rstrip(b"\r\n"):
            yield os.fsdecode(name)
