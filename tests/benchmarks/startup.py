"""How long commands take until they have answered, each in a fresh process.

    python -m tests.benchmarks.startup [--runs N]

On a warm disk `ondevice list` is to stay within 0.35 s, and the first result of
`ondevice classify` with the model that comes along within 0.8 s. Bytecode is kept between
processes, as pip leaves it when it installs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

IMAGE = "IMAGE"

COMMANDS = {
    "python": ["-c", "pass"],
    "import mlx.nn": ["-c", "import mlx.nn"],
    "import ondevice": ["-c", "import ondevice"],
    "ondevice --help": ["-m", "ondevice", "--help"],
    "ondevice list": ["-m", "ondevice", "list"],
    "ondevice show shvit_nano": ["-m", "ondevice", "show", "shvit_nano"],
    "ondevice classify": ["-m", "ondevice", "classify", IMAGE],
}
KEEPS_BYTECODE = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


def seconds(args: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, *args], check=True, stdout=subprocess.DEVNULL, env=KEEPS_BYTECODE
    )
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=15)
    runs = parser.parse_args().runs
    print(f"{'':26} median (minimum) of {runs}, ms")
    with tempfile.TemporaryDirectory() as folder:
        image = Path(folder, "image.jpg")
        Image.effect_noise((640, 480), 60).convert("RGB").save(image)
        for name, given in COMMANDS.items():
            args = [str(image) if arg == IMAGE else arg for arg in given]
            seconds(args)  # warms the disk's cache
            times = [1000 * seconds(args) for _ in range(runs)]
            print(f"{name:26} {statistics.median(times):4.0f} ({min(times):.0f})")


if __name__ == "__main__":
    main()
