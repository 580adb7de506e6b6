"""The shell completes commands, options and values, as ``docs/completion.md`` says."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ondevice.cli import COMMANDS, run

from ...support.commands import ROOT, blocks

PAGE = ROOT / "docs/completion.md"
SHELLS = ("bash", "zsh", "fish")
BASH = shutil.which("bash")


def complete(monkeypatch, capsys, shell, *words):
    """What a shell offers for the last of ``words``."""
    last = {"bash": str(len(words)), "zsh": str(len(words)), "fish": words[-1]}[shell]
    monkeypatch.setenv("_ONDEVICE_COMPLETE", f"{shell}_complete")
    monkeypatch.setenv("COMP_WORDS", " ".join(("ondevice", *words)))
    monkeypatch.setenv("COMP_CWORD", last)
    with pytest.raises(SystemExit) as stopped:
        run([])
    assert stopped.value.code == 0
    return re.findall(r"(?:^plain[,\n]|^plain\n?)(\S+)", capsys.readouterr().out, re.M)


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (("ex",), {"export"}),
        (("de",), {"detect", "depth", "describe", "demo"}),
        (("export", "--tar"), {"--target"}),
        (("export", "--target", "iOS1"), {"iOS17", "iOS18"}),
        (("verify", "--run-on", "d"), {"device"}),
    ],
)
def test_a_shell_completes(monkeypatch, capsys, shell, words, offered):
    found = {word.partition(",")[0] for word in complete(monkeypatch, capsys, shell, *words)}
    assert offered <= found
    assert all(word.startswith(words[-1]) for word in found)


def test_every_command_is_offered(monkeypatch, capsys):
    assert {*complete(monkeypatch, capsys, "bash", "")} == {*COMMANDS}


@pytest.mark.parametrize("shell", SHELLS)
def test_the_page_writes_a_script_for_each_shell(shell, tmp_path):
    (block,) = blocks(PAGE, shell)
    command = Path(sys.executable).with_name("ondevice")
    if BASH is None or not command.exists():
        pytest.skip("no bash, or not installed as a command")
    environment = {**os.environ, "HOME": str(tmp_path)}
    environment["PATH"] = f"{command.parent}:{environment['PATH']}"
    subprocess.run([BASH, "-ec", block], env=environment, check=True, timeout=120)
    written = [p for p in tmp_path.rglob("*ondevice*") if p.is_file()]
    assert len(written) == 1
    assert f"_ONDEVICE_COMPLETE={shell}_complete" in written[0].read_text()


def test_bash_itself_completes_with_the_script(tmp_path):
    command = Path(sys.executable).with_name("ondevice")
    if BASH is None or not command.exists():
        pytest.skip("no bash, or not installed as a command")
    script = """
    eval "$(_ONDEVICE_COMPLETE=bash_source ondevice)"
    COMP_WORDS=(ondevice verify --run-o); COMP_CWORD=2
    _ondevice_completion ondevice
    echo "${COMPREPLY[@]}"
    """
    environment = {**os.environ, "PATH": f"{command.parent}:{os.environ['PATH']}"}
    done = subprocess.run(
        [BASH, "-c", script], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.split() == ["--run-on"]
