"""Whether vision modules of other MLX packages export, and with what numbers.

    python -m tests.benchmarks.zoo [NAME...] [--json FILE] [--limit SECONDS] [--precisions P...]

Each module of ``modules.CATALOGUE`` is built small with random weights, exported in both
precisions, and the package, run by our evaluator, is compared with MLX: signal over error in
decibel, the worst output's. Each runs in a process of its own with a limit of time. Needs the
packages (mlx-image, mlx-vlm, mlx-cv, mlx-sam, mlx-embeddings): what is not installed is left
out. Bars: 100 dB in float32, 55 dB in float16.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np

BARS = {"float32": 100.0, "float16": 55.0}
_MARK = "result: "


def leaves(result: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The arrays of a module's result with the names of the keys that lead to them."""
    import mlx.core as mx

    if isinstance(result, mx.array):
        yield path, result
        return
    if is_dataclass(result):
        items: Any = [(f.name, getattr(result, f.name)) for f in fields(result)]
    elif isinstance(result, dict):
        items = result.items()
    else:
        items = enumerate(result) if isinstance(result, list | tuple) else ()
    for key, value in items:
        yield from leaves(value, f"{path}_{key}" if path else str(key))


def decibel(wanted: Any, got: Any) -> float:
    """Signal over error."""
    w, g = np.asarray(wanted, np.float64).ravel(), np.asarray(got, np.float64).ravel()
    if w.shape != g.shape:
        return -np.inf
    error = float(np.square(w - g).mean())
    signal = float(np.square(w).mean())
    if error == 0:
        return 200.0
    if not np.isfinite(error) or signal == 0:
        return -np.inf
    return float(10 * np.log10(signal / error))


def _agreement(wanted: list[tuple[str, Any]], got: dict[str, Any]) -> float:
    """The worst output's, matched by name where names are known and by order elsewhere."""
    if len(wanted) != len(got):
        return -np.inf
    ordered = list(got.values())
    named = [(name, x, got.get(name, ordered[i])) for i, (name, x) in enumerate(wanted)]
    order = next((_matched(x, y) for n, x, y in named if n == "pred_boxes"), None)
    if order is not None:
        count = len(order)
        named = [
            (n, x, y[..., order, :] if x.ndim > 1 and x.shape[-2] == count else y)
            for n, x, y in named
        ]
    return min((decibel(x, y) for _, x, y in named), default=-np.inf)


def _matched(wanted: Any, got: Any) -> Any:
    """Which detection is which: equal scores are ranked either way in another precision."""
    apart = np.abs(wanted[0][:, None] - got[0][None]).sum(axis=-1)
    order = np.zeros(len(apart), int)
    for _ in order:
        row, column = np.unravel_index(np.argmin(apart), apart.shape)
        order[row] = column
        apart[row], apart[:, column] = np.inf, np.inf
    return order


def measure(name: str, precisions: list[str]) -> dict[str, Any]:
    """Build, export and compare one module: what a line of the table says."""
    import mlx.core as mx

    from converters import export_module, load_package

    from .modules import CATALOGUE, randomized

    mx.random.seed(0)
    module, inputs = CATALOGUE[name]()
    module = randomized(module)
    found: dict[str, Any] = {"name": name, "result": "right"}
    wanted = [(path, np.array(x)) for path, x in leaves(module(*inputs))]
    if not all(np.isfinite(x).all() for _, x in wanted):
        raise SystemExit("its own output is not finite")
    with tempfile.TemporaryDirectory() as folder:
        for precision in precisions:
            start = time.perf_counter()
            path = export_module(
                module, inputs, Path(folder) / f"{precision}.mlpackage", precision=precision
            )
            found[f"{precision} s"] = round(time.perf_counter() - start, 2)
            package = load_package(path)
            found["ops"] = len(package.operations)
            found["transposes"] = package.operations.count("transpose")
            given = dict(zip(package.inputs, map(np.array, inputs), strict=True))
            found[precision] = round(_agreement(wanted, package.predict(given)), 1)
            if found[precision] < BARS[precision]:
                found["result"] = "wrong"
    return found


def attempt(name: str, precisions: list[str], limit: float) -> dict[str, Any]:
    """``measure`` in a process of its own; what stops it is the result."""
    command = [sys.executable, "-W", "ignore", "-m", __spec__.name, "--one", name]
    try:
        done = subprocess.run(
            [*command, "--precisions", *precisions],
            capture_output=True,
            text=True,
            timeout=limit,
        )
    except subprocess.TimeoutExpired:
        return {"name": name, "result": "refused", "cause": f"more than {limit:g} s"}
    lines = [x for x in done.stdout.splitlines() if x.startswith(_MARK)]
    if lines:
        line: dict[str, Any] = json.loads(lines[-1].removeprefix(_MARK))
        return line
    last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    return {"name": name, "result": "refused", "cause": last}


def one(name: str, precisions: list[str]) -> None:
    from ondevice.errors import OnDeviceError

    try:
        found = measure(name, precisions)
    except ImportError as error:
        found = {"name": name, "result": "absent", "cause": str(error)}
    except OnDeviceError as error:
        found = {"name": name, "result": "refused", "cause": str(error)}
    except Exception as error:
        import traceback

        where = traceback.extract_tb(error.__traceback__)[-1]
        cause = f"{type(error).__name__}: {error} ({Path(where.filename).name}:{where.lineno})"
        found = {"name": name, "result": "crashed", "cause": cause}
    print(_MARK + json.dumps(found), flush=True)


_COLUMNS = ("float32", "float16", "ops", "transposes", "float32 s", "float16 s")


def row(found: dict[str, Any]) -> str:
    figures = " ".join(f"{found.get(c, ''):>10}" for c in _COLUMNS)
    return f"{found['name']:44} {found['result']:8} {figures}  {found.get('cause', '')[:200]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="parts of the names wanted; all if none")
    parser.add_argument("--json", type=Path, help="write the lines here as they come")
    parser.add_argument("--limit", type=float, default=180, help="seconds a module may take")
    parser.add_argument("--precisions", nargs="+", default=list(BARS), choices=BARS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        one(options.one, options.precisions)
        return
    from .modules import CATALOGUE

    print(f"{'module':44} {'result':8} " + " ".join(f"{c:>10}" for c in _COLUMNS))
    lines = []
    for name in CATALOGUE:
        if not options.names or any(part in name for part in options.names):
            lines.append(attempt(name, options.precisions, options.limit))
            print(row(lines[-1]), flush=True)
            if options.json:
                options.json.write_text(json.dumps(lines, indent=1), encoding="utf-8")
    counts = {r: sum(x["result"] == r for x in lines) for r in ("right", "wrong", "refused")}
    print(", ".join(f"{n} {r}" for r, n in counts.items()), f"of {len(lines)}")


if __name__ == "__main__":
    main()
