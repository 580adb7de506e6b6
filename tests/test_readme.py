"""What the README says to type works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from ondevice.cli import COMMANDS, cli

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.S)
LINES = [
    line.partition("#")[0].strip()
    for language, block in BLOCKS
    if language == "sh"
    for part in block.splitlines()
    for line in part.split("&&")
]


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("ondevice")])
def test_every_command_exists_with_its_options(line):
    _, name, *args = shlex.split(line)
    assert name in COMMANDS
    command = cli.get_command(None, name)
    context = command.make_context(name, args, resilient_parsing=True)
    known = {option for p in command.params for option in p.opts}
    assert {a for a in args if a.startswith("--")} <= known
    assert context.command is command


@pytest.mark.parametrize("block", [block for language, block in BLOCKS if language == "python"])
def test_the_python_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), {})
    assert (tmp_path / "net.mlpackage").is_dir()
