"""What only a Mac can tell: latency on each compute unit, and where operations run.

Nothing here works elsewhere; ``require_macos`` says so in one line.
"""

from __future__ import annotations

import platform
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from ondevice.errors import PackageError

from .reader import quiet

if TYPE_CHECKING:
    from .loaded import Package

UNITS = ("ALL", "CPU_AND_NE", "CPU_AND_GPU", "CPU_ONLY")
WARM_UP, RUNS = 5, 30
_DEVICES = {
    "MLCPUComputeDevice": "CPU",
    "MLGPUComputeDevice": "GPU",
    "MLNeuralEngineComputeDevice": "Neural Engine",
}


@dataclass(frozen=True)
class UnitMetrics:
    """One choice of compute units: milliseconds from the package to its first answer
    (compiling included) and of a warm one (median, quartile range), and operations by device.

    Latency is that of ``Package.predict``: coremltools' handling of the input is in it.
    """

    units: str
    first_load_ms: float
    median_ms: float
    spread_ms: float
    placement: Mapping[str, int]
    fallen_off: tuple[str, ...]


@dataclass(frozen=True)
class DeviceMetrics:
    """What was measured on one machine, for each choice of compute units."""

    name: str
    units: tuple[UnitMetrics, ...]

    def to_dict(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return asdict(self)


def require_macos() -> None:
    """Raises PackageError elsewhere."""
    if sys.platform != "darwin":
        raise PackageError("run_on='device' is Core ML on macOS; here it is 'reference'")


def measure(package: Package, inputs: Mapping[str, Any]) -> DeviceMetrics:
    """Latency and placement for each choice of compute units. Raises PackageError."""
    require_macos()
    return DeviceMetrics(device_name(), tuple(_measured(package, u, inputs) for u in UNITS))


def _measured(package: Package, unit: str, inputs: Mapping[str, Any]) -> UnitMetrics:
    fresh = package.on(unit)

    def run() -> object:
        return fresh.predict(inputs, run_on="device")

    first = _milliseconds(run)
    for _ in range(WARM_UP):
        run()
    low, median, high = statistics.quantiles((_milliseconds(run) for _ in range(RUNS)), n=4)
    placed = placement(fresh, unit)
    counts = dict(Counter(device for _, device in placed).most_common())
    off = tuple(name for name, device in placed if device != "Neural Engine")
    fallen = off if unit == "CPU_AND_NE" else ()
    return UnitMetrics(unit, first, median, high - low, counts, fallen)


def _milliseconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return 1000 * (time.perf_counter() - start)


def placement(package: Package, unit: str) -> list[tuple[str, str]]:
    """Every operation, as "type name", with the device on which Core ML prefers to run it.

    Constants run nowhere and are left out.
    """
    with quiet():
        import coremltools as ct
        from coremltools.models.compute_plan import MLComputePlan

        model = package.core_ml_model()
        plan = MLComputePlan.load_from_path(
            path=model.get_compiled_model_path(), compute_units=ct.ComputeUnit[unit]
        )
        return list(_preferred(plan, package.default_function))


def _preferred(plan: Any, function: str) -> Iterator[tuple[str, str]]:
    """From a compute plan; operations inside blocks of others count with those. Nothing is
    known of a pipeline's."""
    program = plan.model_structure.program
    for operation in program.functions[function].block.operations if program else ():
        usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
        if usage is not None:
            kind = type(usage.preferred_compute_device).__name__
            name = operation.outputs[0].name if operation.outputs else ""
            yield f"{operation.operator_name} {name}".strip(), _DEVICES.get(kind, kind)


def device_name() -> str:
    """ "Apple M2 Pro, macOS 15.1"."""
    asked = subprocess.run(
        ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True
    )
    chip = asked.stdout.strip() or platform.machine()
    return f"{chip}, macOS {platform.mac_ver()[0]}"
