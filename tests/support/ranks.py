"""Processes that work together, over MLX's ring on loopback."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parents[2]  # from where they may import tests
TIMEOUT = 300  # seconds


def run_ranks(
    folders: Sequence[Path], arguments: Sequence[Sequence[object]]
) -> tuple[list[int], list[tuple[str, str]]]:
    """A Python with ``arguments`` in each of ``folders``: their exit statuses, and what each
    said to stdout and stderr."""
    hosts = folders[0] / "hosts.json"
    hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in _free_ports(len(folders))]))
    started = [
        subprocess.Popen(
            [sys.executable, *map(str, given)],
            cwd=folder,
            env=os.environ
            | {"MLX_RANK": str(rank), "MLX_HOSTFILE": str(hosts), "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, (folder, given) in enumerate(zip(folders, arguments, strict=True))
    ]
    try:
        said = [process.communicate(timeout=TIMEOUT) for process in started]
    finally:  # one that waits for another for ever would slow all tests that follow
        for process in started:
            process.kill()
    return [process.returncode for process in started], said


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports
