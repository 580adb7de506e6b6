"""Tokens of open_clip's own tokenizer: python open_clip_tokens.py OPEN_CLIP (see README.md).

Needs ftfy and regex; of torch, only arrays of numbers, for which numpy stands in if it is not
there. Only the merges that some text uses are kept: without the others nothing changes.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np

FILE = Path(__file__).parent / "clip" / "tokens.json"
TEXTS = [
    "a photo of a cat.",
    "It's 3 o'clock -- don't worry; 12345 PEOPLE'll agree!!! :-)",
    "Zürich, Łódź, naïve café; 東京タワー と 한국어; emoji 🐶🐱",
    "&lt;b&gt;bold&lt;/b&gt; &amp;amp; “quotes” it’s",  # noqa: RUF001
    "  white \t space\nand\r\nlines  ",
    "supercalifragilisticexpialidocious " * 40,
    "",
]


def _tokenizer(folder: Path):
    """open_clip's, from its one file."""
    if importlib.util.find_spec("torch") is None:
        torch = ModuleType("torch")
        torch.Tensor, torch.LongTensor, torch.long = np.ndarray, np.ndarray, np.int64
        torch.zeros = lambda *shape, dtype: np.zeros(shape, dtype)
        torch.tensor = np.array
        sys.modules["torch"] = torch
    spec = importlib.util.spec_from_file_location("tokenizer", folder / "tokenizer.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.SimpleTokenizer()


def used_merges(tokenizer) -> list[str]:
    """In their order: those that make the tokens of a text, and the parts of them."""
    made_of = {"".join(pair): pair for pair in tokenizer.bpe_ranks}
    todo = {tokenizer.decoder[n] for text in TEXTS for n in tokenizer.encode(text)}
    used = set()
    while todo:
        if (pair := made_of.get(todo.pop())) and pair not in used:
            used.add(pair)
            todo |= set(pair)
    return [" ".join(pair) for pair in tokenizer.bpe_ranks if pair in used]


def main() -> None:
    tokenizer = _tokenizer(Path(sys.argv[1]))
    end = tokenizer.encoder["<end_of_text>"]
    rows = [row[: row.index(end) + 1] for row in tokenizer(TEXTS).tolist()]
    tokens = [[tokenizer.decoder[number] for number in row] for row in rows]
    found = {"merges": used_merges(tokenizer), "texts": TEXTS, "tokens": tokens}
    FILE.write_text(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
