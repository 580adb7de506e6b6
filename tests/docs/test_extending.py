"""The patches of docs/extending.md apply, and what they promise comes true."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest

from .. import ROOT

PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
PARTS = re.findall(
    r"^## ([^\n]*)\n(.*?)```diff\n(.*?)```\n+```python\n(.*?)```", PAGE, re.M | re.S
)


@pytest.fixture
def house(tmp_path):
    """The two trees, to be changed."""
    for tree in ("ondevice", "converters"):
        shutil.copytree(
            ROOT / tree, tmp_path / tree, ignore=shutil.ignore_patterns("__pycache__")
        )
    return tmp_path


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part[0].split(":")[0])
def test_a_patch_does_what_it_says(part, house):
    title, _, patch, code = part
    changed = [line for line in patch.splitlines() if line.startswith("+++")]
    assert len(changed) == (1 if title.endswith("one file") else 2)
    applied = subprocess.run(
        ["git", "apply", "-"], cwd=house, input=patch, text=True, capture_output=True
    )
    assert applied.returncode == 0, applied.stderr
    env = {"PATH": "", "PYTHONPATH": str(ROOT)}
    room = house / "before"
    room.mkdir()
    before = subprocess.run(
        [sys.executable, "-c", code], cwd=room, env=env, capture_output=True
    )
    assert before.returncode != 0, "nothing needed to be changed"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path.insert(0, '')\n{code}"],
        cwd=house,
        capture_output=True,
        text=True,
        env={"PATH": "", "PYTHONPATH": str(house)},
    )
    assert done.returncode == 0, done.stderr


def test_the_page_has_every_part():
    assert len(PARTS) == 3
