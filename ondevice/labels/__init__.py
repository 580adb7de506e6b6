"""Names of classes that many checkpoints share."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

from ..config import ModelInfo


@functools.cache
def imagenet1k() -> tuple[str, ...]:
    """The 1000 classes of ImageNet-1k: WordNet's words, in the order of the synset ids."""
    text = (Path(__file__).parent / "imagenet1k.txt").read_text(encoding="utf-8")
    return tuple(text.splitlines())


def with_labels(info: ModelInfo) -> ModelInfo:
    """``info`` with ImageNet's names if it has 1000 classes and none of its own."""
    if info.labels or info.config.num_classes != 1000:
        return info
    return replace(info, labels=imagenet1k())
