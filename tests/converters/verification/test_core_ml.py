"""What Core ML itself says of a package, on a Mac."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from converters import verify
from converters.coreml.device import UNITS, _preferred, measure
from ondevice.errors import PackageError
from ondevice.signature.samples import sample_images


def test_placement_is_counted_by_what_core_ml_prefers():
    class MLCPUComputeDevice: ...

    class MLNeuralEngineComputeDevice: ...

    def operation(kind, name):
        return SimpleNamespace(operator_name=kind, outputs=[SimpleNamespace(name=name)])

    places = {
        "const": None,
        "cast": MLCPUComputeDevice(),
        "conv": MLNeuralEngineComputeDevice(),
    }
    usage = {k: v and SimpleNamespace(preferred_compute_device=v) for k, v in places.items()}
    block = SimpleNamespace(operations=[operation(kind, "x") for kind in places])
    functions = {"main": SimpleNamespace(block=block)}
    plan = SimpleNamespace(
        model_structure=SimpleNamespace(program=SimpleNamespace(functions=functions)),
        get_compute_device_usage_for_mlprogram_operation=lambda op: usage[op.operator_name],
    )
    assert list(_preferred(plan, "main")) == [("cast x", "CPU"), ("conv x", "Neural Engine")]


@pytest.mark.skipif(sys.platform == "darwin", reason="says what it needs elsewhere")
def test_core_ml_is_refused_elsewhere_before_any_work(nano, package):
    with pytest.raises(PackageError, match="needs an Apple device"):
        verify(nano, package, iter(()), run_on="device")


@pytest.mark.coreml
@pytest.mark.skipif(sys.platform != "darwin", reason="needs macOS")
def test_every_compute_unit_gives_the_models_numbers(nano, package):
    report = verify(nano, package, sample_images(96), run_on="device").require()
    assert [s.name for s in report.steps[1:]] == [f"Core ML {unit}" for unit in UNITS]
    assert {unit["units"] for unit in report.device["units"]} == set(UNITS)


@pytest.mark.coreml
@pytest.mark.skipif(sys.platform != "darwin", reason="needs macOS")
def test_latency_and_placement_are_measured(package):
    figures = measure(package, {"image": sample_images(96)[0]})
    for unit in figures.units:
        assert 0 < unit.median_ms < unit.first_load_ms
        assert sum(unit.placement.values()) >= len(package.operations) / 2
