"""Commands that our pages tell people to type: where they are, and whether they would run."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from converters.backend import BACKENDS
from converters.compress.recipe import load_recipe
from converters.coreml.settings import CoreMLSettings
from ondevice.cli import COMMANDS, cli
from ondevice.cli.export import _bytes
from ondevice.registry import model_spec
from ondevice.tasks.embeddings.store import check_out
from ondevice.tasks.vlm.load import is_vlm

from .. import ROOT

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md")), ROOT / "CHANGELOG.md"]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
NAMES = "|".join(COMMANDS)


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.S)


def lines(page: Path) -> Iterator[str]:
    """What stands in the shell blocks of a page, and in its text as `code` with arguments."""
    for block in blocks(page, "sh"):
        for line in block.splitlines():
            yield from filter(None, (part.strip() for part in _words(line).split("&&")))
    for code in _codes(page):
        if code.startswith("ondevice "):
            yield code


def fragments(page: Path) -> list[str]:
    """`--options` in the text, alone or after the name of a command."""
    return [code for code in _codes(page) if re.match(rf"(({NAMES}) )?--\w", code)]


def _codes(page: Path) -> list[str]:
    """What is `code` in the text of a page."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    return [" ".join(code.split()) for code in re.findall(r"`([^`]+)`", text)]


def _words(line: str) -> str:
    """A line without its comment, still quoted."""
    words = shlex.shlex(line, posix=False, punctuation_chars=True)
    words.whitespace_split, words.commenters = True, "#"
    return " ".join(words)


def said_in_example(example: Path) -> list[str]:
    """The command lines in the text at its head."""
    text = example.read_text(encoding="utf-8").split('"""')[1]
    return re.findall(r"(?:mlx\.launch .*)?python examples/.*", text)


def check(line: str) -> None:
    """Raises what the command line would: a click.UsageError, ConfigError, ... of ours."""
    program, *words = shlex.split(line)
    PROGRAMS[program](words)


def check_fragment(code: str) -> None:
    """As ``check``, for a command of which only options are given, or for any."""
    name, *options = words = shlex.split(code)
    if all(word.startswith("--") for word in (options if name in COMMANDS else words)):
        return _check_names(words)
    if name in COMMANDS:
        return _ondevice([name, *options, *_required(name, options)])
    for name in COMMANDS:
        with suppress(click.UsageError):
            return _ondevice([name, *words, *_required(name, words)])
    raise click.UsageError(f"no command takes {code}")


def _check_names(words: list[str]) -> None:
    """Options without their values: one command has them all."""
    commands = words[:1] if words[0] in COMMANDS else list(COMMANDS)
    wanted = {word for word in words if word.startswith("--")}
    if not any(wanted <= {o for p in _command(c).params for o in p.opts} for c in commands):
        raise click.UsageError(f"no command takes {' '.join(words)}")


def _required(name: str, given: list[str]) -> list[str]:
    """Something for everything that the command has to be given and is not."""
    found: list[str] = []
    for parameter in _command(name).params:
        if parameter.required and not {*parameter.opts} & {*given}:
            option = parameter.opts[:1] if isinstance(parameter, click.Option) else []
            found += [*option, "NAME.mlpackage"]
    return found


def _command(name: str) -> click.Command:
    if (command := cli.get_command(None, name)) is None:  # type: ignore[arg-type]
        raise click.UsageError(f"no command {name!r}")
    return command


def _ondevice(words: list[str]) -> None:
    name, *args = words
    command = _command(name)
    given = command.make_context(name, args).params
    for option in given.keys() & _VALUES.keys():
        if given[option] is not None:
            _VALUES[option](given[option])
    _COMMANDS.get(name, lambda given: None)(given)


def _model(name: str) -> None:
    stands_for_any = name.split(".")[0].isupper() or name.endswith("/")  # MODEL, folder/
    if name and not stands_for_any and not is_vlm(name):
        base, _, tag = name.partition(".")
        model_spec(base).checkpoint(tag)


def _export(given: dict[str, Any]) -> None:
    for model in given["models"]:
        _model(model)
    names = ("target", "precision", "attention", "gelu")
    settings = CoreMLSettings(**{k: given[k] for k in names if given[k]})
    if problems := settings.problems():
        raise click.UsageError("; ".join(problems))
    if given["recipe"]:
        load_recipe(given["recipe"], settings.storage)
    if given["budget"]:
        _bytes(given["budget"])
    if (given["recipe"] or given["budget"]) and given["out"]:
        for path in given["out"]:
            _package(path)


def _suffix(*known: str) -> Callable[[Path], None]:
    def check_suffix(path: Path) -> None:
        if path.suffix not in known:
            raise click.UsageError(f"{path} has to end with {', '.join(known)}")

    return check_suffix


_package = _suffix(*BACKENDS)
_VALUES: dict[str, Callable[[Any], None]] = {
    "model": _model,
    "package": _package,
    "html": _suffix(".html"),
    "index_path": lambda path: check_out(path, force=True),
}
_COMMANDS: dict[str, Callable[[dict[str, Any]], None]] = {
    "export": _export,
    "app": lambda given: Path(given["source"]).suffix in BACKENDS or _model(given["source"]),
    "encode": lambda given: check_out(given["out"], force=True),
    "list": lambda given: cli.get_command(None, "list").callback(  # type: ignore
        **{**given, "as_json": True}
    ),
}


def _pip(words: list[str]) -> None:
    """``install -e .[extras]`` or ``install ondevice[extras]``, which our pyproject has."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = re.fullmatch(r"install (?:-e \.|ondevice)\[([\w,]+)\]", " ".join(words))
    if not found:
        raise click.UsageError(f"not how this project is installed: {words}")
    extras = set(found[1].split(","))
    if unknown := extras - project["optional-dependencies"].keys():
        raise click.UsageError(f"no extras {sorted(unknown)}")


def shortest(line: str) -> list[str]:
    """The words of a command line without what may be left out: [more.jpg ...]."""
    return shlex.split(re.sub(r"\[.*?\]", "", line))


def _python(words: list[str]) -> None:
    if not (ROOT / words[0]).is_file():
        raise click.UsageError(f"no file {words[0]}")


def _pytest(words: list[str]) -> None:
    if words:
        raise click.UsageError(f"pytest is run without {words}")


PROGRAMS = {"ondevice": _ondevice, "pip": _pip, "python": _python, "pytest": _pytest}
