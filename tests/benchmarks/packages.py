"""What a package costs and holds, beside the way through PyTorch.

    python -m tests.benchmarks.packages [NETWORK...] [--runs N] [--no-torch]

Every network gets weights that anybody can rebuild (tests/parity). Beside each figure stands
its bar, and what torch.jit.trace and coremltools make of timm's network, re-parameterized, in
the same run; that needs the extra ``parity``, timm and torchvision.
FastViTHD takes minutes and some 8 GB: name it to have it.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from converters import export, load_package, verify
from converters.coreml.reader import quiet
from converters.verification.inspect import Inspection, inspect
from converters.verification.metrics import Metrics
from ondevice import create_model, fuse
from ondevice.config import Preprocess
from tests.parity import weightgen
from tests.parity.cases import Case

from .memory import most_memory


@dataclass(frozen=True)
class Network:
    """One column of the table, and its bars."""

    case: str
    timm: str
    size: int
    output: str
    operations: int
    moving: int
    faster: float
    psnr_db: float


NETWORKS = {
    "shvit_s4": Network("shvit_s4-256", "shvit_s4", 256, "logits", 310, 66, 4, 55),
    "efficientvit_m5": Network(
        "efficientvit_m5-224", "efficientvit_m5", 224, "logits", 490, 130, 4, 55
    ),
    "fastvit_sa12": Network("fastvit_sa12-256", "fastvit_sa12", 256, "logits", 122, 10, 4, 55),
    "fastvithd": Network("fastvlm-256", "fastvit_mci3", 1024, "tokens", 360, 22, 2, 50),
}
SMALL = tuple(name for name in NETWORKS if name != "fastvithd")
MEMORY = 4  # times the float32 weights, for FastViTHD


@dataclass(frozen=True)
class Row:
    """One figure: ours, what it should be, the other way's."""

    title: str
    ours: str
    bar: str
    met: bool | None
    torch: str = ""


def create(network: Network) -> Any:
    model = Case(network.case).create()
    mx.eval(model.parameters())
    return model


def sample_images(model: Any, network: Network, count: int) -> list[Any]:
    """Images of the kind that the weights' norms fit, as uint8 levels."""
    case, spec = Case(network.case), model.info.preprocess
    x = weightgen.image_batch(case.meta["seed"], count, network.size).transpose(0, 2, 3, 1)
    x = x / 4 + 0.5 if case.meta["unit"] else x * np.array(spec.std) + np.array(spec.mean)
    return list((255 * x.clip(0, 1)).astype(np.uint8))


def ours(model: Any, network: Network, path: Path) -> Callable[[], object]:
    """A call that exports, with the model in memory."""
    options = {"size": network.size, "outputs": (network.output,), "force": True}
    return lambda: export(model, path, **options)


def through_torch(network: Network, spec: Preprocess, path: Path) -> Callable[[], object]:
    """A call that traces and converts timm's network, which is in memory."""
    import coremltools as ct
    import torch

    _mend()
    import timm

    timm.layers.set_fused_attn(False)
    model = timm.create_model(network.timm).eval()
    if network.case == f"{network.timm}-{network.size}":  # else: of another project's names
        weights = Case(network.case).weights()
        model.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in weights.items()})
    model = timm.utils.reparameterize_model(model)
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in (spec.mean, spec.std))

    class Whole(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Any) -> Any:
            x = (x - mean) / std
            return model(x) if network.output == "logits" else model.forward_features(x)

    whole, x = Whole().eval(), torch.zeros(1, 3, network.size, network.size)

    def convert() -> None:
        with torch.no_grad(), quiet():
            traced = torch.jit.trace(whole, x)
            image = ct.ImageType(name="image", shape=x.shape, scale=1 / 255)
            target = ct.target.iOS17
            package = ct.convert(
                traced, inputs=[image], minimum_deployment_target=target, skip_model_load=True
            )
            package.save(str(path))

    return convert


@cache
def _mend() -> None:
    """What keeps today's versions from working together at all."""
    from coremltools.converters.mil.frontend.torch import ops

    from tests.parity import torchvision_ops

    torchvision_ops.declare()
    cast = ops._cast

    def cast_scalars(context: Any, node: Any, dtype: type, dtype_name: str) -> None:
        (x,) = ops._get_inputs(context, node, expected=1)
        if not x.can_be_folded_to_const():
            cast(context, node, dtype, dtype_name)
            return
        value = dtype(np.asarray(x.val).item())  # NumPy 2.4 refuses int(array of one)
        context.add(ops.mb.const(val=value, name=node.name), node.name)

    ops._cast = cast_scalars


def fastest(call: Callable[[], object], runs: int) -> float:
    """Seconds; the first call also pays for imports."""
    return min(_seconds(call) for _ in range(runs))


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def peak_bytes(name: str) -> tuple[int, int, int]:
    """Of a fresh process that exports: before, at its peak, and the float32 weights."""
    command = [sys.executable, "-m", __spec__.name, "--peak", name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    before, peak, weights = map(int, done.stdout.split())
    return before, peak, weights


def measure_peak(name: str) -> None:
    """Print this process's memory before and after an export, and the weights' bytes."""
    model = create_model(name, weights=None)
    mx.eval(model.parameters())
    weights = sum(a.size * 4 for _, a in tree_flatten(fuse(model).parameters()))
    before = most_memory()
    with tempfile.TemporaryDirectory() as room:
        ours(model, NETWORKS[name], Path(room) / "x.mlpackage")()
    print(before, most_memory(), weights)


def figures(name: str, runs: int, room: Path, with_torch: bool) -> Iterator[Row]:
    network, path, other = NETWORKS[name], room / "ours.mlpackage", room / "torch.mlpackage"
    model = create(network)
    seconds = fastest(ours(model, network, path), runs)
    spec, torch_seconds = model.info.preprocess, None
    if with_torch:
        torch_seconds = fastest(through_torch(network, spec, other), runs)
    yield from counts(network, inspect(path), inspect(other) if with_torch else None)
    yield export_time(network, seconds, torch_seconds)
    yield precision(model, network, path, other if with_torch else None)
    yield memory(name)


def precision(model: Any, network: Network, path: Path, other: Path | None) -> Row:
    """Of the float16 packages against the model, where torch's has the same weights."""
    images = sample_images(model, network, 1 if network.size > 512 else 4)
    (compared,) = verify(model, path, images).comparisons
    level, least, beside = compared.psnr_db, network.psnr_db, ""
    if other and network.case == f"{network.timm}-{network.size}":
        metrics, package = Metrics("logits"), load_package(other)
        signature = model.signature.resized(network.size).select("logits")
        for image in images:
            (got,) = package.predict({"image": image}).values()
            wanted = signature.compute(model, *signature.prepare([image]))["logits"]
            metrics.add("", [image], np.array(wanted), got)
        beside = f"{metrics.result().psnr_db:.1f}"
    return Row("float16, dB", f"{level:.1f}", f">= {least:g}", level >= least, beside)


def counts(network: Network, found: Inspection, other: Inspection | None) -> Iterator[Row]:
    table: dict[str, tuple[Callable[[Inspection], int], int]] = {
        "operations": (lambda p: p.operation_count, network.operations),
        "data-moving": (lambda p: p.data_moving_count, network.moving),
        "transposes": (lambda p: p.operations.get("transpose", 0), 0),
    }
    for title, (count, bar) in table.items():
        n = count(found)
        yield Row(title, str(n), f"<= {bar}", n <= bar, str(count(other)) if other else "")


def export_time(network: Network, seconds: float, torch_seconds: float | None) -> Row:
    bar = f">= {network.faster:g}x"
    if torch_seconds is None:
        return Row("export, s", f"{seconds:.2f}", bar, None)
    faster = torch_seconds / seconds
    return Row(
        "export, s",
        f"{seconds:.2f} ({faster:.1f}x)",
        bar,
        faster >= network.faster,
        f"{torch_seconds:.2f}",
    )


def memory(name: str) -> Row:
    before, peak, weights = peak_bytes(name)
    text = f"{peak / 1e6:.0f} ({peak / weights:.1f}x weights; {before / 1e6:.0f} before)"
    if name != "fastvithd":  # small ones are all libraries
        return Row("peak memory, MB", text, "", None)
    return Row("peak memory, MB", text, f"<= {MEMORY}x", peak <= MEMORY * weights)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=", ".join(NETWORKS))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--no-torch", action="store_true")
    parser.add_argument("--peak", choices=list(NETWORKS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.peak:
        measure_peak(args.peak)
        return
    warnings.simplefilter("ignore")  # torch's and coremltools' own
    line = "{:16} {:16} {:40} {:8} {:7} {}"
    print(line.format("network", "figure", "ours", "bar", "", "PyTorch"))
    verdicts = {True: "ok", False: "MISSED", None: ""}
    for name in args.networks or SMALL:
        with tempfile.TemporaryDirectory() as room:
            for row in figures(name, args.runs, Path(room), not args.no_torch):
                verdict = verdicts[row.met]
                print(
                    line.format(name, row.title, row.ours, row.bar, verdict, row.torch),
                    flush=True,
                )


if __name__ == "__main__":
    main()
