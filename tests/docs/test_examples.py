"""The examples run as they stand, each in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import pytest
from PIL import Image

from ondevice.cli.verify import patterns

from .. import ROOT

EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(example, tmp_path):
    photos = []
    for name, levels in zip("ab", patterns(150)[2:], strict=True):
        Image.fromarray(levels).save(tmp_path / f"{name}.png")
        photos.append(f"{name}.png")
    command = [sys.executable, str(example), *photos]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
