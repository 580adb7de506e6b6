"""``ondevice doctor``: what this machine has, what is wrong with it, and what helps."""

from __future__ import annotations

import itertools
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from typing import TYPE_CHECKING

import click

from ._output import json_option, print_json, print_table

if TYPE_CHECKING:
    from packaging.requirements import Requirement

SEVERITIES = ("fine", "note", "warning", "error")
ROOM = 5  # GB for weights and packages, below which a disk is called full
FROM_MACOS = 14  # that MLX runs on


@dataclass(frozen=True)
class Finding:
    """One line: what was looked at, what was found, how bad that is and what helps."""

    subject: str
    found: str
    severity: str = "fine"
    remedy: str = ""


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Print what this machine has, what is wrong with it, and what helps.

    Versions, extras, the chip, the BLAS, caches and disks. Nothing is changed or downloaded.
    Exit status 1 if something keeps ondevice from working. Put this into a bug report.
    """
    findings = [finding for check in CHECKS for finding in check()]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        rows = [(f.severity, f.subject, f.found, f.remedy) for f in findings]
        print_table(("", "", "found", "what helps"), rows)
    if any(finding.severity == "error" for finding in findings):
        click.get_current_context().exit(1)


def _python() -> Iterator[Finding]:
    found = f"{platform.python_version()}, {sys.platform}, {platform.machine()}"
    if _sysctl("sysctl.proc_translated") == "1":
        remedy = "install Python for arm64: MLX does not run under Rosetta"
        yield Finding("Python", f"{found}, under Rosetta", "error", remedy)
    else:
        yield Finding("Python", found)


def _system() -> Iterator[Finding]:
    release = platform.mac_ver()[0]
    if sys.platform != "darwin":
        remedy = "export and verify work; latency and Core ML itself need a Mac"
        yield Finding("system", platform.platform(), "note", remedy)
    elif int(release.partition(".")[0]) < FROM_MACOS:
        remedy = f"update: MLX needs macOS {FROM_MACOS} or later"
        yield Finding("system", f"macOS {release}", "error", remedy)
    else:
        yield Finding("system", f"macOS {release}")


def _chip() -> Iterator[Finding]:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    name = _sysctl("machdep.cpu.brand_string") or _linux_processor() or platform.processor()
    yield Finding("chip", f"{name}, {os.cpu_count()} cores, {memory:.0f} GB")


def _packages() -> Iterator[Finding]:
    """Each package that is always needed."""
    try:
        yield Finding("ondevice", version("ondevice"))
    except PackageNotFoundError:
        yield Finding("ondevice", "not installed", "error", "pip install ondevice")
        return
    for requirement in _requirements(""):
        problem = _problem(requirement)
        remedy = f"pip install '{requirement.name}{requirement.specifier}'" if problem else ""
        found = problem or version(requirement.name)
        yield Finding(requirement.name, found, "error" if problem else "fine", remedy)


def _extras() -> Iterator[Finding]:
    """Each extra of those who use ondevice: those of its developers are left out."""
    names = metadata("ondevice").get_all("Provides-Extra") or []
    for extra in sorted({*names} - {"test", "parity", "docs", "browser"}):
        wanted = _requirements(extra)
        problems = [f"{r.name} {p}" for r in wanted if (p := _problem(r))]
        missing = all(problem.endswith(_MISSING) for problem in problems)
        found = ", ".join(problems or [f"{r.name} {version(r.name)}" for r in wanted])
        severity = ("note" if missing else "warning") if problems else "fine"
        remedy = f"pip install 'ondevice[{extra}]'" if problems else ""
        if wanted:
            yield Finding(f"[{extra}]", found, severity, remedy)


def _core_ml() -> Iterator[Finding]:
    """On a Mac coremltools has a compiled part, which packages need to run."""
    if sys.platform != "darwin":
        return
    from importlib.util import find_spec

    if find_spec("coremltools.libcoremlpython") is None:
        remedy = "use a Python that coremltools has a wheel for, such as 3.12"
        yield Finding("Core ML", "coremltools cannot reach it", "error", remedy)
    else:
        yield Finding("Core ML", "coremltools reaches it")


def _blas() -> Iterator[Finding]:
    if sys.platform != "linux":
        return
    from ..cpu.blas import BLAS, is_slow

    if is_slow():
        remedy = "apt install libopenblas0-pthread: matrix products are 40 times faster"
        yield Finding("BLAS", "MLX's own, slow", "warning", remedy)
    else:
        yield Finding("BLAS", BLAS)


def _hub() -> Iterator[Finding]:
    from huggingface_hub.constants import HF_HUB_CACHE, HF_HUB_OFFLINE

    if HF_HUB_OFFLINE:
        remedy = "unset HF_HUB_OFFLINE to download weights"
        yield Finding("hub", "offline", "note", remedy)
    yield _disk("weights", Path(HF_HUB_CACHE), "set HF_HOME to a folder on another disk")


def _temporary() -> Iterator[Finding]:
    import tempfile

    yield _disk("temporary", Path(tempfile.gettempdir()), "set TMPDIR to another disk")


def _xcode() -> Iterator[Finding]:
    swift = shutil.which("swift")
    remedy = "" if swift else "install Xcode to build apps"
    yield Finding("Swift", swift or "not found", "fine" if swift else "note", remedy)


CHECKS: tuple[Callable[[], Iterator[Finding]], ...] = (
    _python,
    _system,
    _chip,
    _packages,
    _extras,
    _core_ml,
    _blas,
    _hub,
    _temporary,
    _xcode,
)

_MISSING = "not installed"


def _requirements(extra: str, of: str = "ondevice") -> list[Requirement]:
    """What ``extra`` needs on this machine, or without a name, what is always needed."""
    from packaging.requirements import Requirement

    found = [Requirement(text) for text in requires(of) or []]
    always = {str(r) for r in found if r.marker is None or r.marker.evaluate({"extra": ""})}
    if not extra:
        own = {r.name: r for r in found if str(r) in always}
        parts = [
            _requirements(e, of=r.name) for r in found if str(r) in always for e in r.extras
        ]
        return [*own.values(), *itertools.chain.from_iterable(parts)]
    chosen = [r for r in found if r.marker and r.marker.evaluate({"extra": extra})]
    return [r for r in chosen if str(r) not in always and r.name != of]


def _problem(requirement: Requirement) -> str:
    """Why what is installed does not meet a requirement; "" if it does."""
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return _MISSING
    return "" if requirement.specifier.contains(found, prereleases=True) else found


def _disk(subject: str, folder: Path, remedy: str) -> Finding:
    """Whether there is room below ``folder``, and whether it may be written to."""
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    free = shutil.disk_usage(existing).free / 1e9
    if not os.access(existing, os.W_OK):
        return Finding(subject, f"{folder} cannot be written to", "error", remedy)
    severity = "warning" if free < ROOM else "fine"
    return Finding(subject, f"{folder}, {free:.0f} GB free", severity, remedy * (free < ROOM))


def _sysctl(name: str) -> str:
    """A fact of macOS; "" where there is none."""
    if sys.platform != "darwin":
        return ""
    found = subprocess.run(["sysctl", "-n", name], capture_output=True, text=True, check=False)
    return found.stdout.strip()


def _linux_processor() -> str:
    """The processor's name, and the widest vectors that it has."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
    lines = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    facts = {key.strip(): value.strip() for key, value in lines.items()}
    flags = facts.get("flags", "").split()
    wide = next((n for f, n in _VECTORS.items() if f in flags), "")
    return " ".join(filter(None, (facts.get("model name", ""), wide)))


_VECTORS = {"avx512f": "(AVX-512)", "avx2": "(AVX2)"}
