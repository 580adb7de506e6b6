"""A studio in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest


@dataclass(frozen=True)
class Server:
    address: str
    process: subprocess.Popen
    uploads: Path  # where photos lie until they are deleted

    def memory(self) -> float:
        """The resident megabytes."""
        text = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(text.split("VmRSS:")[1].split()[0]) / 1024


@contextmanager
def serving(*options: object, **environment: str) -> Iterator[Server]:
    """A studio at a free port, with a folder of its own for what is uploaded."""
    import tempfile

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    words = ["studio", "--no-browser", "--port", port, *options]
    command = [sys.executable, "-m", "ondevice", *map(str, words)]
    address = f"http://127.0.0.1:{port}"
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "log", "wb") as log:
        uploads = Path(folder) / "uploads"
        variables = {**os.environ, "GRADIO_TEMP_DIR": str(uploads), **environment}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=variables)
        try:
            _wait_for(address, process, Path(log.name))
            yield Server(address, process, uploads)
        finally:
            process.terminate()
            process.wait()


def _wait_for(address: str, process: subprocess.Popen, log: Path, seconds: float = 180) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end and process.poll() is None:
        try:
            urllib.request.urlopen(address, timeout=5).close()
            return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"the studio does not answer: {log.read_text()}")
