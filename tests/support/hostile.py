"""Read hostile files in a process of their own, which has little memory and nothing to lose.

As a program, given a folder, it imports each file there as a shvit_nano, and prints a line of
JSON for each.
"""

import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from .. import ROOT

MEMORY = 2 * 2**30  # bytes of address space beyond what the imports take
CANARY = "canary"  # the file that hostile code makes when it runs


@dataclass(frozen=True)
class Verdict:
    error: str  # the class
    message: str
    seconds: float
    grown: int  # by how much the peak of resident memory rose, in bytes
    wrote: list[str]  # what is in the working folder afterwards


def judge(
    cases: Mapping[str, Callable[[], bytes]], suffix: str, folder: Path
) -> dict[str, Verdict]:
    """What became of each case. One that ended the process has no verdict, nor those after."""
    files, scratch = folder / "files", folder / "scratch"
    files.mkdir()
    scratch.mkdir()
    (folder / "canary_module.py").write_text(f"open({CANARY!r}, 'w')")
    for name, make in cases.items():
        (files / f"{name}{suffix}").write_bytes(make())
    path = os.pathsep.join([str(ROOT), str(folder)])
    run = subprocess.run(
        [sys.executable, "-m", __name__, files],
        cwd=scratch,
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
    )
    print(run.stderr)
    verdicts = map(json.loads, run.stdout.splitlines())
    return {v.pop("case"): Verdict(**v) for v in verdicts}


def check(verdict: Verdict, fragment: str) -> None:
    """Refused in one line that says why; quickly, in little memory, without a trace."""
    assert (verdict.error, verdict.message.count("\n")) == ("WeightsError", 0)
    assert fragment in verdict.message
    assert verdict.message.isprintable()
    assert len(verdict.message) < 3000
    assert verdict.wrote == []
    assert verdict.seconds < 30  # 4 at most, on a quiet machine
    assert verdict.grown < 200 * 2**20  # 75 at most


def _peak() -> int:
    """The most memory held since the last call, or of all times where that is not known."""
    if sys.platform != "linux":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    status = Path("/proc/self/status").read_text()
    Path("/proc/self/clear_refs").write_text("5")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def _limit_memory() -> None:
    if sys.platform == "linux":  # elsewhere only the peak is looked at
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * resource.getpagesize() + MEMORY
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main() -> None:
    from ondevice.tasks.import_weights import import_weights

    _limit_memory()
    _peak()
    for path in sorted(Path(sys.argv[1]).iterdir()):
        before, start = _peak(), time.perf_counter()
        try:
            import_weights(path, "shvit_nano", "out")
            error, message = "", "it was read"
        except Exception as caught:
            error, message = type(caught).__name__, str(caught)
        verdict = {
            "error": error,
            "message": message,
            "seconds": time.perf_counter() - start,
            "grown": _peak() - before,
            "wrote": os.listdir(),
        }
        print(json.dumps({"case": path.stem, **verdict}), flush=True)


if __name__ == "__main__":
    main()
