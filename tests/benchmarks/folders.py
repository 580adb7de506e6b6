"""How fast folders are encoded, in how much memory, by how many ranks, through kills.

    python -m tests.benchmarks.folders --data DIR [--images N] [--runs N] [--only NAME ...]

DIR holds ``cifar10/test.npz`` (JPEG files in one array) and, if there, ``flower_photos``.
Every figure is the median of ``--runs`` pairs taken in turns, because machines are shared.
Where a GPU computes, the cores are free to decode. On a plain CPU both share them, so that
``overlap`` gives the model one core and the decoder the others: what is left is waiting.
Bars: throughput at least 95 % of the bare model's, memory growth at most 50 MB from 1,000 to
20,000 images, two ranks of one thread at least 1.7 times one, ten kills without a trace.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import ondevice
from ondevice.image.files import expand
from ondevice.tasks.embeddings.encode import embedder, encode

MODELS = {"cifar10": "shvit_nano.cifar10", "flower_photos": "shvit_nano.flowers"}
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
# A process that encodes, then tells its highest memory in bytes.
MEASURED = """
import resource, sys
from ondevice.cli import run
status = run(sys.argv[1:])
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(peak * (1 if sys.platform == "darwin" else 1024))
sys.exit(status)
"""


def unpack(data: Path, room: Path, images: int) -> dict[str, list[str]]:
    """The paths of each data set's images."""
    import numpy as np

    with np.load(data / "cifar10" / "test.npz") as found:
        ends, blob = found["offsets"], found["jpeg"].tobytes()
    folder = room / "cifar10"
    folder.mkdir()
    for i in range(min(images, len(ends) - 1)):
        (folder / f"{i:05}.jpg").write_bytes(blob[ends[i] : ends[i + 1]])
    sets = {"cifar10": list(expand([str(folder)]))}
    if (flowers := data / "flower_photos").is_dir():
        sets["flower_photos"] = list(expand([str(flowers)]))[:images]
    return sets


def throughput(sets: dict[str, list[str]], room: Path, runs: int) -> None:
    """Beside the model alone, and beside what is left of it where the same cores decode."""
    for name, paths in sets.items():
        model = ondevice.create_model(MODELS[name])
        ways = (
            decoder(model, paths),
            bare_model(model, paths),
            encoder(model, paths, room / "t.npz"),
        )
        rounds = [[way() for way in ways] for _ in range(runs)]
        rates = [len(paths) / statistics.median(way) for way in zip(*rounds, strict=True)]
        print(
            f"{name}: {len(paths):,} images; images/s: decoding alone {rates[0]:.0f}, the "
            f"model alone {rates[1]:.0f}, encode {rates[2]:.0f}; ratio to the model "
            f"{spread([m / e for _, m, e in rounds])}, to model and decoding one after the "
            f"other, each on all cores {spread([(d + m) / e for d, m, e in rounds])}"
        )


def overlap(sets: dict[str, list[str]], room: Path, runs: int) -> None:
    """Beside the model alone, where the model has a core of its own, as it has a GPU."""
    from threadpoolctl import threadpool_limits

    for name, paths in sets.items():
        model = ondevice.create_model(MODELS[name])
        workers = max(1, (os.cpu_count() or 1) - 1)
        with threadpool_limits(1, user_api="blas"):
            alone = bare_model(model, paths)
            ways = alone, encoder(model, paths, room / "o.npz", workers)
            rounds = [[way() for way in ways] for _ in range(runs)]
        rates = [len(paths) / statistics.median(way) for way in zip(*rounds, strict=True)]
        print(
            f"{name}: {len(paths):,} images; images/s on a core of its own: the model alone "
            f"{rates[0]:.0f}, encode {rates[1]:.0f}; ratio {spread([m / e for m, e in rounds])}"
        )


def decoder(model: ondevice.nn.Module, paths: list[str]) -> Callable[[], float]:
    """Seconds in which all cores decode and resize the images."""
    from ondevice.image.preprocess import resize_and_crop

    def run() -> float:
        start = time.perf_counter()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for _ in pool.map(lambda path: resize_and_crop(path, model.info.preprocess), paths):
                pass
        return time.perf_counter() - start

    return run


def bare_model(model: ondevice.nn.Module, paths: list[str]) -> Callable[[], float]:
    """Seconds of the fused model alone on the same images, decoded before."""
    import mlx.core as mx
    import numpy as np

    from ondevice.image.preprocess import normalize, resize_and_crop

    spec, embed = model.info.preprocess, embedder(ondevice.fuse(model))
    levels = [resize_and_crop(path, spec) for path in paths]
    batches = [np.stack(levels[i : i + 16]) for i in range(0, len(levels), 16)]

    def run() -> float:
        start = time.perf_counter()
        for batch in batches:
            ondevice.run(embed, normalize(mx.array(batch), spec))
        return time.perf_counter() - start

    return run


def encoder(
    model: ondevice.nn.Module, paths: list[str], out: Path, workers: int | None = None
) -> Callable[[], float]:
    """Seconds of the whole command's work."""

    def run() -> float:
        start = time.perf_counter()
        encode(model, paths, out, force=True, workers=workers)
        return time.perf_counter() - start

    return run


def memory(sets: dict[str, list[str]], room: Path, runs: int) -> None:
    """Peak memory of a process that encodes few images, and many."""
    paths = sets["cifar10"]
    peaks: dict[int, list[float]] = {1_000: [], 20_000: []}
    for _ in range(min(runs, 2)):
        for count, found in peaks.items():
            names = (paths * (count // len(paths) + 1))[:count]
            listed = room / f"{count}.txt"
            listed.write_text("\n".join(names))
            args = ["encode", str(listed), "--out", str(room / "m.npz"), "--force"]
            done = subprocess.run(
                [sys.executable, "-c", MEASURED, *args], capture_output=True, check=True
            )
            found.append(int(done.stdout.split()[-1]) / 1e6)
    few, many = (statistics.median(found) for found in peaks.values())
    print(f"peak memory: {few:.0f} MB at 1,000 images, {many:.0f} at 20,000: {many - few:+.0f}")


def ranks(sets: dict[str, list[str]], room: Path, runs: int) -> None:
    """Two ranks against one, with their start: of one thread each, and on one core each.

    One rank of one thread alone still decodes on the second core; on a core of its own not.
    """
    paths = room / "ranks.txt"
    paths.write_text("\n".join(sets["cifar10"]))
    for pinned in (False, True) if hasattr(os, "sched_setaffinity") else (False,):
        pairs = [[seconds(size, paths, room, pinned) for size in (1, 2)] for _ in range(runs)]
        one, two = ((room / f"r{size}.npz").read_bytes() for size in (1, 2))
        print(
            f"2 ranks against 1, one {'core' if pinned else 'thread'} each: "
            f"{spread([a / b for a, b in pairs])} times; same file: {one == two}"
        )


def seconds(size: int, paths: Path, room: Path, pinned: bool) -> float:
    """How long ``size`` ranks take."""
    servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(size)]
    hosts = room / "hosts.json"
    hosts.write_text(json.dumps([[f"127.0.0.1:{s.getsockname()[1]}"] for s in servers]))
    for server in servers:
        server.close()
    args = ["encode", str(paths), "--out", str(room / f"r{size}.npz"), "--force"]
    started = []
    start = time.perf_counter()
    for rank in range(size):
        group = {"MLX_RANK": str(rank), "MLX_HOSTFILE": str(hosts)} if size > 1 else {}
        core = f"os.sched_setaffinity(0, {{{rank}}});" if pinned else ""
        code = (
            f"import os, sys; {core} from ondevice.cli import run; sys.exit(run(sys.argv[1:]))"
        )
        command = [sys.executable, "-c", code, *args, "--workers", "1"]
        env = os.environ | ONE_THREAD | group
        started.append(subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL))
    statuses = [process.wait() for process in started]
    if any(statuses):
        raise SystemExit("a rank failed")
    return time.perf_counter() - start


def kills(sets: dict[str, list[str]], room: Path, runs: int) -> None:
    """Ten kills at random moments of one job, then its end: the file is as without any."""
    listed = room / "kills.txt"
    listed.write_text("\n".join(sets["cifar10"][:2_000]))
    command = [sys.executable, "-m", "ondevice", "encode", str(listed), "--out"]
    begin = time.perf_counter()
    subprocess.run([*command, room / "whole.npz"], check=True, stdout=subprocess.DEVNULL)
    whole = time.perf_counter() - begin
    out, survived, rng = room / "killed.npz", 0, random.Random(0)
    while survived < 10:
        process = subprocess.Popen([*command, out], stdout=subprocess.DEVNULL)
        time.sleep(rng.uniform(0, whole / 2))
        process.send_signal(signal.SIGKILL)
        if process.wait() == -signal.SIGKILL:
            survived += 1
            rows = out.with_name("killed.npz.partial") / "0.rows"
            print(f"  kill {survived}: {rows.stat().st_size if rows.exists() else 0:,} bytes")
        if out.exists():  # it had come to its end
            out.unlink()
    subprocess.run([*command, out], check=True, stdout=subprocess.DEVNULL)
    same = out.read_bytes() == (room / "whole.npz").read_bytes()
    print(f"after 10 kills, the same file: {same}; left over: {sorted(room.glob('*.partial'))}")


def spread(values: list[float]) -> str:
    return f"{statistics.median(values):.3f} ({min(values):.3f} to {max(values):.3f})"


PARTS = {
    "throughput": throughput,
    "overlap": overlap,
    "memory": memory,
    "ranks": ranks,
    "kills": kills,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", nargs="*", choices=list(PARTS), default=list(PARTS))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as room:
        sets = unpack(given.data, Path(room), given.images)
        for name in given.only:
            print(f"{name} (load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores)")
            PARTS[name](sets, Path(room), given.runs)


if __name__ == "__main__":
    main()
