"""Outputs appear whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import OutputError


@contextmanager
def replacing(path: str | Path, *, force: bool = False, marker: str = "") -> Iterator[Path]:
    """A path to write to that becomes ``path`` when the block ends without an error.

    The block makes the file or folder itself. It is written beside ``path``, on the same
    disk, and renamed at the end; what was there before stays until then, and is replaced
    only with ``force``, a folder moreover only if it holds a file named ``marker``. Where a
    ``marker`` says that a folder is written, a file is not replaced.
    Raises OutputError.
    """
    path = Path(os.path.abspath(path))
    try:
        check_free(path, force=force, marker=marker)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            partial = Path(folder) / path.name
            yield partial
            _swap(partial, path, Path(folder) / "replaced")  # removed with the folder
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror or error}") from error


def check_free(path: Path, *, force: bool, marker: str = "") -> None:
    """Raises OutputError if ``replacing`` would, for what is at ``path``."""
    if path.exists() and not force:
        raise OutputError(f"{path} exists; use --force (force=True) to replace it")
    if path.is_dir() and any(path.iterdir()) and not (path / marker).is_file():
        raise OutputError(f"{path} is a folder of something else; it is not replaced")
    if marker and path.is_file():
        raise OutputError(f"{path} is a file, and a folder is written; it is not replaced")
    above = next(folder for folder in path.absolute().parents if folder.exists())
    if not above.is_dir():
        raise OutputError(f"cannot write {path}: {above} is no folder")
    if not os.access(above, os.W_OK | os.X_OK):
        raise OutputError(f"cannot write {path}: nothing may be written to {above}")


def _swap(new: Path, path: Path, old: Path) -> None:
    """``new`` replaces ``path``, which moves to ``old``; or everything stays as it was."""
    if not path.exists():
        new.rename(path)
        return
    path.rename(old)
    try:
        new.rename(path)
    except BaseException:
        old.rename(path)
        raise


def folder_bytes(path: Path) -> int:
    """The size of a folder: of all files in it."""
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file())
