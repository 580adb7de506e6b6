"""HTML's named characters as Swift source: python -m tests.apps.html_entities"""

from __future__ import annotations

from html.entities import html5
from pathlib import Path

from .goldens import PACKAGE

FILE = PACKAGE / "Sources" / "OnDeviceCore" / "HTMLEntities.swift"
WIDTH = 92
SOURCE = '''// Written by tests/apps/html_entities.py from the table of Python's html module.

/// The named characters of HTML: a name and the code of each of its characters. Those with a
/// `!` are known without a semicolon as well.
let htmlEntities = """
{}
    """
'''


def source() -> str:
    """The Swift file."""
    lines = [""]
    for name in sorted(name[:-1] for name in html5 if name.endswith(";")):
        codes = "+".join(f"{ord(c):X}" for c in html5[f"{name};"])
        entry = f"{name}{'!' if name in html5 else ''}={codes}"
        if len(lines[-1]) + 1 + len(entry) > WIDTH:
            lines.append("")
        lines[-1] = f"{lines[-1]} {entry}".strip()
    return SOURCE.format("\n".join(f"    {line}" for line in lines))


def write(path: Path = FILE) -> None:
    """Write the Swift file."""
    path.write_text(source(), encoding="utf-8")


if __name__ == "__main__":
    write()
