"""CLIP's and SigLIP's tokens, by the ``tokenizers`` library, from a ``tokenizer.json``."""

from __future__ import annotations

import html
import re
import string
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlx.core as mx

from ...errors import ConfigError, printable

if TYPE_CHECKING:
    from ...models.clip_text import TextConfig

FILE = "tokenizer.json"
_START, _END = "<|startoftext|>", "<|endoftext|>"
_MAX_CHARS = 20_000  # far more than 77 tokens; the rest of a longer text is not looked at
_LONG_NUMBER = re.compile(r"&#\d{4000,};?")
_QUOTES = str.maketrans("‘’“”", "''\"\"")  # noqa: RUF001 - as CLIP's cleaning has them

# Of SigLIP's tokenizers: the token that ends a text, and the one that fills the row up.
_PIECES = {"t5": ("</s>", "</s>"), "gemma": ("<eos>", "<pad>")}
_NO_PUNCTUATION = str.maketrans("_", " ", string.punctuation.replace("_", ""))


class _Rows:
    """Texts to rows of token ids, as ``row`` of a subclass makes them."""

    context: int

    def __call__(self, texts: Sequence[str]) -> mx.array:
        """(B, context) int32 token ids of B texts."""
        rows = [self.row(text) for text in texts]
        return mx.array(rows, mx.int32).reshape(len(rows), self.context)

    def row(self, text: str) -> list[int]:
        """The ``context`` token ids of a text."""
        raise NotImplementedError


class Tokenizer(_Rows):
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

    def row(self, text: str) -> list[int]:
        """Start, tokens, end, zeros."""
        found = self._bpe.encode(_clean(text), add_special_tokens=False).ids
        ids = [self.start, *found[: self.context - 2], self.end]
        return ids + [0] * (self.context - len(ids))


class SigLIPTokenizer(_Rows):
    """Texts to rows of ``context`` token ids: the text, its end, and filling.

    As open_clip does it, texts are cleaned as for CLIP, lose their punctuation and become
    lower case; a longer text is cut, its end token kept. ``tokens`` says whose tokenizer it
    is: T5's (SigLIP) or Gemma's (SigLIP 2).

    Raises ConfigError for a file that is no tokenizer of this SigLIP.
    """

    def __init__(
        self, path: str | Path, *, tokens: str = "t5", context: int = 64, vocab: int = 32_000
    ) -> None:
        self.context, self.vocab = context, vocab
        self._pieces = _read(Path(path))
        names = _PIECES[tokens]
        marks = [self._pieces.token_to_id(name) for name in names]
        size = self._pieces.get_vocab_size()
        # Tokens that no text has may be missing in the model, but not half of all.
        if None in marks or not vocab / 2 < size < 2 * vocab:
            raise ConfigError(
                f"{path} is no tokenizer of this SigLIP: it has {size} tokens, expected about "
                f"{vocab}, {' and '.join(dict.fromkeys(names))} among them"
            )
        self.end, self.filling = marks

    def row(self, text: str) -> list[int]:
        """Tokens, end, filling. Raises ConfigError for a token that the model has not."""
        found = self._pieces.encode(canonical(text), add_special_tokens=False).ids
        ids = [*found[: self.context - 1], self.end]
        if unknown := [i for i in ids if i >= self.vocab]:
            raise ConfigError(
                f"the tokenizer makes token {unknown[0]} of {printable(text, 40)!r}, the model "
                f"has {self.vocab}: give the tokenizer.json that belongs to it"
            )
        return ids + [self.filling] * (self.context - len(ids))


def read_tokenizer(path: str | Path, config: TextConfig) -> Tokenizer | SigLIPTokenizer:
    """The tokenizer of a text encoder so configured. Raises ConfigError."""
    size = {"context": config.context, "vocab": config.vocab}
    if config.tokens == "clip":
        return Tokenizer(path, **size)
    return SigLIPTokenizer(path, tokens=config.tokens, **size)


def canonical(text: str) -> str:
    """Lower case, without punctuation, one space between words."""
    return " ".join(_clean(text).translate(_NO_PUNCTUATION).lower().split())


def _clean(text: str) -> str:
    """With straight quotes, and entities such as ``&amp;`` resolved."""
    return _unescaped(_unescaped(text[:_MAX_CHARS].translate(_QUOTES)))


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
