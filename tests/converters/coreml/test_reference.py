"""Each operation against coremltools' own value inference, or against plain loops.

One program holds every case, so that one conversion and one run serve all tests.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from converters import load_package
from converters.coreml.reference import EVALUATORS
from tests.support.mil import mb, save, types
from tests.support.mil_cases import CASES

# What a model cannot put out, and int32 can hold.
_WHOLE = (types.int8, types.uint8, types.int16, types.uint16, types.int32, types.bool)


def _flat(case_name: str) -> list[tuple[str, Any]]:
    """A case's run-time tensors, one by one, under names of their own."""
    slug = f"case{list(CASES).index(case_name)}"
    tensors = []
    for name, value in CASES[case_name].inputs.items():
        several = value if isinstance(value, list) else [value]
        tensors += [(f"{slug}_{name}{i}", v) for i, v in enumerate(several)]
    return tensors


def _declared(value: Any) -> tuple[tuple[int, ...], str]:
    dtype = "int32" if value.dtype == np.int32 else "float32"
    return value.shape or (1,), dtype


def _variables(case_name: str, placeholders: dict[str, Any]) -> dict[str, Any]:
    """The operation's inputs from the program's, which are neither bools nor scalars."""

    def variable(name: str, value: Any) -> Any:
        var = placeholders[name]
        var = mb.squeeze(x=var) if value.ndim == 0 else var
        return mb.cast(x=var, dtype="bool") if value.dtype == bool else var

    named = iter([variable(n, v) for n, v in _flat(case_name)])
    return {
        name: [next(named) for _ in value] if isinstance(value, list) else next(named)
        for name, value in CASES[case_name].inputs.items()
    }


@pytest.fixture(scope="session")
def results(tmp_path_factory):
    """Every case's outputs, from one package."""
    tensors = {n: v for case in CASES for n, v in _flat(case)}
    names: dict[str, list[str]] = {}

    def body(**placeholders: Any) -> list[Any]:
        outputs = []
        for index, (name, case) in enumerate(CASES.items()):
            results = case.build(_variables(name, placeholders))
            names[name] = [f"result{index}_{i}" for i in range(len(results))]
            for i, var in enumerate(results):
                dtype = "int32" if var.dtype in _WHOLE else "fp32"
                shaped = var if var.rank else mb.expand_dims(x=var, axes=[0])
                outputs.append(mb.cast(x=shaped, dtype=dtype, name=f"result{index}_{i}"))
        return outputs

    path = save(
        body,
        {n: _declared(v) for n, v in tensors.items()},
        tmp_path_factory.mktemp("reference") / "cases.mlpackage",
        target="iOS18",
        fuse=False,
    )
    given = {n: v.reshape(_declared(v)[0]) for n, v in tensors.items()}
    values = load_package(path).predict(given)
    return {case: [values[n] for n in outputs] for case, outputs in names.items()}


@pytest.mark.parametrize("name", CASES)
def test_an_operation_gives_what_coremltools_or_plain_loops_give(name, results):
    expected = CASES[name].expected()
    assert len(results[name]) == len(expected)
    for given, wanted in zip(results[name], expected, strict=True):
        assert given.shape == (wanted.shape or (1,))
        # float32 against float32, in another order of additions
        np.testing.assert_allclose(given, wanted, rtol=2e-5, atol=2e-6)


def test_every_evaluator_has_a_case():
    elsewhere = {"dequantize", "classify"}  # in test_packages.py
    assert EVALUATORS.keys() - elsewhere == {case.op for case in CASES.values()}
