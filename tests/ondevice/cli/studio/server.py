"""A studio in a process of its own."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

# The command, with other times after which uploads are deleted.
START = """
import sys
from ondevice.cli import run
if delete := {delete}:
    from ondevice.cli.studio import page
    page.DELETE = delete
sys.exit(run(sys.argv[1:]))
"""


@dataclass(frozen=True)
class Server:
    address: str
    process: subprocess.Popen
    folder: Path  # in which it makes its own

    def uploads(self) -> list[Path]:
        """The photos that lie on the disk."""
        return [p for p in self.folder.glob("ondevice-studio-*/uploads/**/*") if p.is_file()]

    def memory(self) -> float:
        """The resident megabytes."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.split("VmRSS:")[1].split()[0]) / 1024

    def stop(self, how: signal.Signals) -> None:
        """As Ctrl-C does (SIGINT), or the system (SIGTERM)."""
        self.process.send_signal(how)
        self.process.wait(30)


@contextmanager
def serving(*options: object, delete: tuple[int, int] | None = None) -> Iterator[Server]:
    """A studio at a free port; ``delete`` is how often uploads are looked at, and how old
    those are that are deleted, in seconds."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["studio", "--no-browser", "--port", port, *options]
    command = [sys.executable, "-c", START.format(delete=delete), *map(str, words)]
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "log", "wb") as log:
        variables = {**os.environ, "TMPDIR": folder}
        process = subprocess.Popen(
            command, stdout=log, stderr=log, env=variables, preexec_fn=_interruptible
        )
        try:
            _wait_for(address, process, Path(log.name))
            yield Server(address, process, Path(folder))
        finally:
            process.terminate()
            process.wait()


def _interruptible() -> None:
    """Ctrl-C is heard also where the tests run in the background, which ignores it."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _wait_for(address: str, process: subprocess.Popen, log: Path, seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"the studio does not answer: {log.read_text()}")
