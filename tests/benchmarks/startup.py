"""How long commands take that compute nothing, each in a fresh process.

    python -m tests.benchmarks.startup [--runs N]

`ondevice list` is to stay within 0.35 s on a warm disk.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "python": ["-c", "pass"],
    "import mlx.nn": ["-c", "import mlx.nn"],
    "import ondevice": ["-c", "import ondevice"],
    "ondevice --help": ["-m", "ondevice", "--help"],
    "ondevice list": ["-m", "ondevice", "list"],
    "ondevice show shvit_nano": ["-m", "ondevice", "show", "shvit_nano"],
}


def seconds(args: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run([sys.executable, *args], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    print(f"{'':26} median (minimum) of {runs}, ms")
    for name, args in COMMANDS.items():
        seconds(args)  # warms the disk's cache
        times = [1000 * seconds(args) for _ in range(runs)]
        print(f"{name:26} {statistics.median(times):4.0f} ({min(times):.0f})")


if __name__ == "__main__":
    main()
