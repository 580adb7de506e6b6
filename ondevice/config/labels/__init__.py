"""Names of classes: those that many checkpoints share, and what makes names unusable."""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from unicodedata import category, normalize

from ...errors import ConfigError, printable

IMAGENET1K = "imagenet1k"  # 1000 classes: WordNet's words, in the order of the synset ids
COCO = "coco"  # the 80 classes of objects
COCO91 = "coco91"  # the same under COCO's own numbers, of which eleven mean nothing
ADE20K = "ade20k"  # the 150 classes of MIT's scene parsing benchmark


@functools.cache
def known_labels(name: str) -> tuple[str, ...]:
    """The classes that many checkpoints share: by one of the names above."""
    text = (Path(__file__).parent / f"{name}.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def imagenet1k() -> tuple[str, ...]:
    """The 1000 classes of ImageNet-1k."""
    return known_labels(IMAGENET1K)


def read_labels(path: str | Path) -> tuple[str, ...]:
    """The labels in a UTF-8 file, one a line; "imagenet1k" means those. Raises ConfigError."""
    if str(path) == IMAGENET1K:
        return imagenet1k()
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").rstrip().split("\n")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8 text"
        raise ConfigError(f"{path} is no file of labels, one a line: {reason}") from error
    return tuple(line.strip() for line in lines)


def check_labels(labels: Sequence[Any], classes: int, source: str) -> None:
    """Raise a ConfigError with all that keeps ``labels`` from naming that many classes.

    None at all are fine; one logit has one label, or two (see ``class_names``). A package
    keeps a class's probability under its label, so that each has to be there, and to differ
    from the others by more than white space.
    """
    if not labels:
        return
    problems = _problems(labels)
    if len(labels) not in ({1, 2} if classes == 1 else {classes}):
        problems.insert(0, f"{len(labels)} for {classes} classes")
    if problems:
        raise ConfigError(f"{source}: labels cannot be used: {'; '.join(problems)}")


def _problems(labels: Sequence[Any]) -> list[str]:
    texts = {i: label for i, label in enumerate(labels) if isinstance(label, str)}
    plain = {i: normalize("NFC", " ".join(label.split())) for i, label in texts.items()}
    count = Counter(plain.values())
    same = {text: [i for i in plain if plain[i] == text] for text, n in count.items() if n > 1}
    return [
        *_list("no text", [i for i in range(len(labels)) if i not in texts]),
        *_list("empty", [i for i, text in plain.items() if not text]),
        *_list("unprintable", [i for i, label in texts.items() if _has_control(label)]),
        *_list("no Unicode", [i for i, label in texts.items() if not _is_unicode(label)]),
        *[_repeated(text, where, texts) for text, where in same.items() if text][:4],
    ]


def _list(what: str, where: list[int]) -> list[str]:
    shown = ", ".join(map(str, where[:8])) + (", …" if len(where) > 8 else "")
    return [f"{what} for class {shown}"] if where else []


def _repeated(text: str, where: list[int], texts: dict[int, str]) -> str:
    how = "" if len({texts[i] for i in where}) == 1 else ", but for white space"
    classes = ", ".join(map(str, where[:8]))
    return f"{printable(text, 40)!r} for classes {classes}{how}"


def _has_control(text: str) -> bool:
    """Line ends, zero bytes and characters without a width: no table or Swift shows them."""
    return any(category(c) in {"Cc", "Cf"} and c != "\u200d" for c in text)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
