"""CLIP's byte-pair tokens, by the ``tokenizers`` library, from a ``tokenizer.json``."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx

from ...errors import ConfigError, printable

FILE = "tokenizer.json"
_START, _END = "<|startoftext|>", "<|endoftext|>"
_MAX_CHARS = 20_000  # far more than 77 tokens; the rest of a longer text is not looked at
_LONG_NUMBER = re.compile(r"&#\d{4000,};?")
_QUOTES = str.maketrans("‘’“”", "''\"\"")  # noqa: RUF001 - as CLIP's cleaning has them


class Tokenizer:
    """Texts to rows of ``context`` token ids: start, the text, end, zeros.

    As open_clip does it, entities such as ``&amp;`` and typographic quotes are resolved first;
    a longer text is cut, its end token kept.

    Raises ConfigError for a file that is no tokenizer of this CLIP.
    """

    def __init__(self, path: str | Path, *, context: int = 77, vocab: int = 49408) -> None:
        self.context = context
        self._bpe = _read(Path(path))
        ends = [self._bpe.token_to_id(token) for token in (_START, _END)]
        size = self._bpe.get_vocab_size()
        if None in ends or ends[1] != size - 1 or size > vocab:
            raise ConfigError(
                f"{path} is no tokenizer of this CLIP: it has {size} tokens, expected at most "
                f"{vocab}, {_START} among them, {_END} the last"
            )
        self.start, self.end = ends

    def __call__(self, texts: Sequence[str]) -> mx.array:
        """(B, context) int32 token ids of B texts."""
        rows = [self._row(text) for text in texts]
        return mx.array(rows, mx.int32).reshape(len(rows), self.context)

    def _row(self, text: str) -> list[int]:
        clean = _unescaped(_unescaped(text[:_MAX_CHARS].translate(_QUOTES)))
        found = self._bpe.encode(clean, add_special_tokens=False).ids
        ids = [self.start, *found[: self.context - 2], self.end]
        return ids + [0] * (self.context - len(ids))


def _unescaped(text: str) -> str:
    """With its entities resolved; one whose number Python refuses to read is no character."""
    return html.unescape(_LONG_NUMBER.sub("\N{REPLACEMENT CHARACTER}", text))


def _read(path: Path) -> Any:
    try:
        import tokenizers
    except ImportError as error:
        raise ConfigError("texts need tokenizers: pip install 'ondevice[clip]'") from error
    try:
        bpe = tokenizers.Tokenizer.from_buffer(path.read_bytes())
    except Exception as error:  # tokenizers raises nothing more special
        reason = (isinstance(error, OSError) and error.strerror) or " ".join(str(error).split())
        raise ConfigError(f"{path} is no readable tokenizer: {printable(reason)}") from error
    bpe.no_padding()
    bpe.no_truncation()
    return bpe
