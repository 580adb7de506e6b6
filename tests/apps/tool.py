"""The command ``ondevice-swift``, built where Swift is on the machine."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .goldens import PACKAGE

HAS_SWIFT = shutil.which("swift") is not None


@functools.cache
def path() -> Path:
    """The built command. The first call may take a minute or two."""
    build = ["swift", "build", "-c", "release", "--package-path", str(PACKAGE)]
    subprocess.run([*build, "-Xswiftc", "-warnings-as-errors"], check=True, capture_output=True)
    shown = subprocess.run(
        [*build, "--show-bin-path"], check=True, capture_output=True, text=True
    )
    return Path(shown.stdout.strip()) / "ondevice-swift"


def run(*words: object) -> subprocess.CompletedProcess[str]:
    """The command with ``words`` behind it, whatever it says."""
    return subprocess.run([path(), *map(str, words)], capture_output=True, text=True)


def output(*words: object) -> str:
    """What it prints. Raises AssertionError if it fails."""
    done = run(*words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def preprocess(
    images: Sequence[Path], contract: dict[str, Any], folder: Path, *more: str
) -> None:
    """Write the pixels that a model sees of PPM files into ``folder``."""
    (folder / "contract.json").write_text(json.dumps(contract))
    output(
        "preprocess", *images, "--contract", folder / "contract.json", "--dump", folder, *more
    )


def tokens(tokenizer: Path, texts: Sequence[str], folder: Path) -> list[list[int]]:
    """The ids of texts, which have one line each."""
    (folder / "texts.txt").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    lines = output("tokenize", "--tokenizer", tokenizer, "--file", folder / "texts.txt")
    return [json.loads(line) for line in lines.splitlines()]


def search(
    index: Path, query: Sequence[float], folder: Path, top_k: int
) -> list[dict[str, Any]]:
    """The matches of a query."""
    (folder / "query.json").write_text(json.dumps(list(query)))
    words = ("--index", index, "--query", folder / "query.json", "--top-k", top_k)
    return json.loads(output("search", *words))["results"]
