"""Images a second of our networks beside other ways to run them, on the same weights.

    python -m tests.benchmarks.forward [NETWORK...] [--batch [N ...]] [--runs N] [--peers P ...]

Each way is a process of its own with ``--threads`` threads; they take turns, one forward pass
each, so that a busy machine is busy for all. Ratios are to timm's re-parameterized network
in eager mode: above 1 is faster than it. After FastViTHD's comes how its time grows with the
image, which ``fastvithd --batch`` shows alone. PyTorch's ways need the extra ``parity``,
timm and torchvision; ``onnxruntime`` that package and onnxscript.

``--device gpu`` runs MLX on the GPU beside PyTorch on the same (Metal, or CUDA, where
``timm-compiled`` is torch.compile), in half precision with ``--dtype float16``. Neither GPU
has been measured yet. ``mlx-vlm`` (FastViTHD only) is for a Mac, not measured yet either.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import ondevice

from .memory import most_memory

Forward = Callable[[], object]


@dataclass(frozen=True)
class Network:
    """What is measured: its size in pixels, timm's name, the least ratio by batch size."""

    size: int
    timm: str
    bars: dict[int, float]


NETWORKS = {
    "shvit_s1": Network(224, "shvit_s1", {1: 1.0}),
    "shvit_s4": Network(256, "shvit_s4", {16: 1.0}),
    "efficientvit_m0": Network(224, "efficientvit_m0", {1: 1.0}),
    "efficientvit_m5": Network(224, "efficientvit_m5", {16: 1.0}),
    "fastvit_t8": Network(256, "fastvit_t8", {}),
    "fastvit_sa12": Network(256, "fastvit_sa12", {16: 0.6}),
    "fastvithd": Network(512, "fastvit_mci3", {16: 0.6}),
}


@dataclass(frozen=True)
class Setting:
    """What a process needs to know: which network, how many images, where, in what."""

    network: str
    batch: int
    size: int
    device: str
    dtype: str
    weights: str  # a file of timm's names
    threads: int

    def images(self) -> Any:
        """(B, 3, H, W) float32."""
        shape = (self.batch, 3, self.size, self.size)
        return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


# The ways: each gives a forward pass whose result is an array, logits or the last map -------


def ours(setting: Setting) -> Forward:
    import mlx.core as mx

    mx.set_default_device(getattr(mx, setting.device))
    dtype = getattr(mx, setting.dtype)
    model = ondevice.create_model(setting.network, weights=setting.weights, dtype=dtype)
    model = ondevice.fuse(model)
    x = mx.array(setting.images().transpose(0, 2, 3, 1)).astype(dtype)
    mx.eval(model.parameters(), x)
    if setting.network == "fastvithd":
        return lambda: ondevice.run(model.features, x).transpose(0, 3, 1, 2)
    return lambda: ondevice.run(model, x)


def _timm(setting: Setting) -> Any:
    """timm's network, not yet trained nor merged."""
    import torch

    from tests.parity import torchvision_ops

    torchvision_ops.declare()
    import timm

    torch.set_num_threads(setting.threads)
    merged = {"inference_mode": True} if setting.network == "fastvithd" else {}
    return timm.create_model(NETWORKS[setting.network].timm, **merged)


def _merged(setting: Setting) -> tuple[Any, Any]:
    """timm's network as it is fastest, and its input."""
    import safetensors.torch
    import torch

    model = _timm(setting).eval()
    from timm.utils import reparameterize_model

    model.load_state_dict(safetensors.torch.load_file(setting.weights))
    if setting.network != "fastvithd":  # which is made merged
        model = reparameterize_model(model)
    if hasattr(model, "fuse"):
        model.fuse()
    gpu = "cuda" if torch.cuda.is_available() else "mps"
    device = "cpu" if setting.device == "cpu" else gpu
    dtype = getattr(torch, setting.dtype)
    return model.to(device, dtype), torch.from_numpy(setting.images()).to(device, dtype)


def _torch_forward(setting: Setting, change: Callable[[Any, Any], Any]) -> Forward:
    import torch

    model, x = _merged(setting)
    call = change(torch, model.forward_features if setting.network == "fastvithd" else model)

    def forward() -> Any:
        with torch.inference_mode():
            y = call(x)
        return y.float().cpu().numpy()

    return forward


def timm_fused(setting: Setting) -> Forward:
    return _torch_forward(setting, lambda torch, model: model)


def timm_compiled(setting: Setting) -> Forward:
    return _torch_forward(setting, lambda torch, model: torch.compile(model))


def onnxruntime(setting: Setting) -> Forward:
    import onnxruntime
    import torch

    model, x = _merged(setting)
    if setting.network == "fastvithd":
        model.forward = model.forward_features
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = setting.threads
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "model.onnx")
        torch.onnx.export(model, (x,), path, dynamo=True, verbose=False)
        session = onnxruntime.InferenceSession(path, options)
    given = {session.get_inputs()[0].name: x.numpy()}
    return lambda: session.run(None, given)[0]


def mlx_vlm(setting: Setting) -> Forward:
    """FastViTHD as mlx-vlm has it. Random weights: times only."""
    import mlx.core as mx
    from mlx.utils import tree_map
    from mlx_vlm.models.fastvlm.config import VisionConfig
    from mlx_vlm.models.fastvlm.vision import VisionModel

    model = VisionModel(VisionConfig())
    dtype = getattr(mx, setting.dtype)
    model.update(tree_map(lambda v: v.astype(dtype), model.parameters()))
    x = mx.array(setting.images().transpose(0, 2, 3, 1)).astype(dtype)
    mx.eval(model.parameters(), x)

    def forward() -> Any:
        y = model(x)
        mx.eval(y)
        return y

    return forward


PEERS: dict[str, Callable[[Setting], Forward]] = {
    "ours": ours,
    "timm": timm_fused,
    "timm-compiled": timm_compiled,
    "onnxruntime": onnxruntime,
    "mlx-vlm": mlx_vlm,
}
DEFAULT_PEERS = ("ours", "timm", "onnxruntime")


# A process -----------------------------------------------------------------------------


def serve(peer: str, setting: Setting) -> None:
    """A forward pass for every line that comes in; its time goes out. Last, the memory."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not for the parent

    def say(value: object) -> None:
        print(json.dumps(value), file=out, flush=True)

    forward = PEERS[peer](setting)
    result = np.array(forward(), np.float32)
    np.save(f"{setting.weights}.{peer}.npy", result)
    say("ready")
    for _ in sys.stdin:
        forward()  # after the others' turns, the caches hold nothing of this one
        start = time.perf_counter()
        forward()
        say(time.perf_counter() - start)
    say(most_memory())


class Process:
    """One way to run a network, ready to run."""

    def __init__(self, peer: str, setting: Setting) -> None:
        given = json.dumps(vars(setting))
        threads = {f"{library}_NUM_THREADS": str(setting.threads) for library in _POOLS}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.forward", "--serve", peer, given],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **threads},
        )
        self.ready = self._hear() == "ready"

    def _hear(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        return json.loads(line) if line else None

    def time(self) -> float:
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return float(self._hear())

    def close(self) -> int:
        """End it: the memory it took, in bytes."""
        assert self._process.stdin
        self._process.stdin.close()
        memory = self._hear()
        self._process.wait()
        return int(memory or 0)


REST = 0.3  # seconds: the threads of the one before wait for work at full speed for a while
_POOLS = ("OMP", "OPENBLAS", "MKL", "VECLIB")


# The table -----------------------------------------------------------------------------


def write_weights(setting: Setting) -> None:
    """Weights for all: timm's, freshly drawn, with norms that have seen an image."""
    code = f"import tests.benchmarks.forward as f; f.draw_weights({setting!r})"
    code = code.replace("Setting(", "f.Setting(")
    subprocess.run([sys.executable, "-c", code], check=True, stderr=subprocess.DEVNULL)


def draw_weights(setting: Setting) -> None:
    """Save timm's network with the statistics of its norms taken from the images."""
    import safetensors.torch
    import torch

    torch.manual_seed(0)
    model = _timm(setting)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
            module.momentum = 1.0
    several = replace(setting, batch=4)  # one image has no variance
    with torch.no_grad():
        model.train()(torch.from_numpy(several.images()))
    safetensors.torch.save_file(model.state_dict(), setting.weights)


def measure(setting: Setting, peers: Sequence[str], runs: int) -> dict[str, Any]:
    """Seconds of every pass of every peer, and what its process took."""
    started = {peer: Process(peer, setting) for peer in peers}
    ready = {peer: process for peer, process in started.items() if process.ready}
    times = dict(zip(ready, in_turns([*ready.values()], runs), strict=True))
    memory = {peer: process.close() for peer, process in started.items()}
    results = {peer: np.load(f"{setting.weights}.{peer}.npy") for peer in ready}
    return {
        peer: {
            "seconds": times[peer],
            "memory": memory[peer],
            "apart": _apart(results[peer], results.get("timm")),
        }
        for peer in ready
    }


def in_turns(processes: list[Process], runs: int) -> list[list[float]]:
    """Seconds of each pass of each process."""
    times: list[list[float]] = [[] for _ in processes]
    for _ in range(runs):
        for process, seconds in zip(processes, times, strict=True):
            time.sleep(REST)
            seconds.append(process.time())
    return times


def _apart(a: Any, b: Any) -> float | None:
    """The largest difference, in standard deviations."""
    if b is None or a.shape != b.shape:
        return None
    return float(np.abs(a - b).max() / b.std())


def rows(name: str, batch: int, found: dict[str, Any]) -> list[str]:
    base = found.get("timm", {}).get("seconds")
    lines = []
    for peer, result in found.items():
        seconds = np.array(result["seconds"])
        quarter, median, three = np.quantile(seconds, [0.25, 0.5, 0.75])
        line = (
            f"{name:16} {batch:3} {peer:14} {1e3 * median:8.1f} ms "
            f"({1e3 * quarter:.1f} to {1e3 * three:.1f}) {batch / median:8.1f} images/s "
            f"{result['memory'] / 2**20:6.0f} MiB"
        )
        if base and peer != "timm":
            ratio = statistics.median(np.array(base) / seconds)
            best = min(base) / seconds.min()
            line += f"  x {ratio:.2f} (fastest passes: {best:.2f})"
            bar = NETWORKS[name].bars.get(batch)
            if peer == "ours" and bar:
                line += f", bar {bar}: {'met' if ratio >= bar else 'MISSED'}"
            if result["apart"] is not None:
                line += f"; outputs {result['apart']:.0e} apart"
        lines.append(line)
    return lines


# What a norm without scale and shift is made of where it is traced; on a GPU it is one kernel.
_NORM = 9
_VIEWS = frozenset(
    "Broadcast ExpandDims Flatten Reshape Split Squeeze Transpose Unflatten".split()
)

# A convolution is two primitives, one of them its bias; a GELU five (x/1.41, erf, +1, *x, /2).
# SHViT-S4: 103 convolutions (stem 4; blocks of 3, and 2 more with attention: 4 of 3, 13 of 5;
# two mergings of 11), 43 ReLUs, 34 sums of residuals, 13 attentions (norm, 2 products, softmax,
# concatenation), 2 gates (mean of 2 primitives, sigmoid, product), pool of 2, head.
# FastViT-SA12: 63 convolutions (stem 3; token mixers 10; attentions 2 * 2; position 1; MLPs
# 12 * 3; downsamplings 3 * 2; last 1, its gate 2), 19 GELUs, 12 sums of MLPs' and 2 of
# attentions' residuals, 2 attentions (2 products, softmax), 1 gate (mean of 2, ReLU, sigmoid,
# product), pool of 2, head.
BY_HAND = {
    "shvit_s4": 2 * 103 + 43 + 34 + 13 * 5 + 2 * 4 + 2 + 1,
    "fastvit_sa12": 2 * 63 + 19 * 5 + 12 + 2 + 2 * 3 + 5 + 2 + 1,
}


def count(name: str) -> int:
    """The primitives of a fused forward pass that compute: a GPU's kernels, views aside."""
    import mlx.core as mx

    from converters.graph.trace import trace

    model = ondevice.fuse(ondevice.create_model(name))
    size = NETWORKS[name].size
    ops = [node.op for node in trace(model, mx.zeros((1, size, size, 3))).nodes]
    norms = ops.count("Sqrt")
    return sum(op not in _VIEWS for op in ops) - norms * (_NORM - 1)


def growth(args: argparse.Namespace, name: str) -> str:
    """How the time of one image grows with its size; the two sizes take turns."""
    with tempfile.TemporaryDirectory() as room:
        weights = str(Path(room) / "weights.safetensors")
        small = Setting(name, 1, 512, args.device, args.dtype, weights, args.threads)
        write_weights(small)
        processes = [Process("ours", replace(small, size=size)) for size in (512, 1024)]
        times = in_turns(processes, args.runs)
        for process in processes:
            process.close()
    powers = sorted(math.log(b / a) / math.log(4) for a, b in zip(*times, strict=True))
    power = statistics.median(powers)
    verdict = "met" if power <= GROWTH else "MISSED"
    small_time, large_time = (statistics.median(seconds) for seconds in times)
    return (
        f"{name}: {small_time:.2f} s at 512 px, {large_time:.2f} at 1024: pixels to the power "
        f"of {power:.2f} ({powers[0]:.2f} to {powers[-1]:.2f}), bar {GROWTH}: {verdict}"
    )


GROWTH = 1.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("networks", nargs="*", default=[*NETWORKS], metavar="NETWORK")
    parser.add_argument("--batch", type=int, nargs="*", default=[1, 16])
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=DEFAULT_PEERS)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--dtype", choices=("float32", "float16"), default="float32")
    parser.add_argument("--size", type=int, help="pixels a side, of all networks")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all times there too")
    parser.add_argument("--serve", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.serve:
        serve(args.serve[0], Setting(**json.loads(args.serve[1])))
        return
    everything = {}
    for name in args.networks:
        by_hand = f", {BY_HAND[name]} by hand" if name in BY_HAND else ""
        print(f"{name}: {count(name)} primitives{by_hand}", flush=True)
        for batch in args.batch:
            with tempfile.TemporaryDirectory() as room:
                size = args.size or NETWORKS[name].size
                weights = str(Path(room) / "weights.safetensors")
                where = (args.device, args.dtype)
                setting = Setting(name, batch, size, *where, weights, args.threads)
                write_weights(setting)
                found = measure(setting, args.peers, args.runs)
            everything[f"{name} {batch}"] = found
            print(*rows(name, batch, found), sep="\n", flush=True)
        if name == "fastvithd":
            print(growth(args, name), flush=True)
    if args.json:
        args.json.write_text(json.dumps(everything, indent=1))


if __name__ == "__main__":
    main()
